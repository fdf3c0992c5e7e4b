// Which words are written on the map: the first that fit, so that more appear as a person goes nearer.
const ROOM = 14_000; // square pixels a label: about forty in a map of 900 × 640
const APART = [22, 12]; // pixels between one label and the next
const LONGEST = 28;

class Labels {
  constructor() {
    this.widths = new Map();
  }

  // Draws labels, the first come first; each is { text, x, y, loud } with its place in pixels. Answers those that were drawn.
  draw(context, wanted, width, height, look) {
    const most = Math.max(6, Math.round((width * height) / ROOM));
    const boxes = [];
    const drawn = [];
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineJoin = "round";
    for (const { text, x, y, loud } of wanted) {
      if (boxes.length >= most && !loud) break;
      if (x < 0 || x > width || y < 0 || y > height) continue;
      const said = text.length > LONGEST ? `${text.slice(0, LONGEST - 1)}…` : text;
      context.font = `${loud ? 600 : 400} ${loud ? 13 : 12}px ${look.font}`;
      const key = (loud ? "!" : "") + said;
      if (!this.widths.has(key)) this.widths.set(key, context.measureText(said).width);
      const half = this.widths.get(key) / 2;
      const apart = loud ? [2, 1] : APART;
      const box = [x - half, y - 8, x + half, y + 8];
      if (boxes.some((other) => box[0] < other[2] + apart[0] && box[2] > other[0] - apart[0] && box[1] < other[3] + apart[1] && box[3] > other[1] - apart[1])) continue;
      boxes.push(box);
      drawn.push(said);
      context.lineWidth = 3.5;
      context.strokeStyle = look.background;
      context.globalAlpha = 0.85;
      context.strokeText(said, x, y);
      context.globalAlpha = 1;
      context.fillStyle = loud ? look.accent : look.text;
      context.fillText(said, x, y);
    }
    return drawn;
  }
}
