// One pane: a picture larger than its window, which is moved while a person drags and drawn anew when they stop; and what changes at once over it.
// The picture is one opaque canvas, moved by whole pixels: where there is no graphics card, nothing is then blended or sampled at a frame.
const MARGIN = 1.5; // the picture's sides beside the window's
const NEIGHBOURS_DRAWN_UP_TO = 6; // selected tokens: of more, the lines to their true neighbours would cover the map
const TOKENS_NAMED_UP_TO = 30; // in sight

// A word as it is written on the map: the space that starts it goes without saying.
function said(word) {
  return word.replace(/^␣/, "");
}

class Pane {
  constructor(atlas, number) {
    this.atlas = atlas;
    this.number = number;
    this.title = element("div", { class: "title" });
    this.canvas = element("canvas", { class: "picture" });
    this.over = element("canvas", { class: "over" });
    this.stage = element("div", { class: "stage", tabindex: "0", role: "application", "aria-roledescription": "map" }, this.canvas, this.over, this.title);
    this.picture = new Picture(element("canvas", {}));
    this.view = atlas.view;
    this.picture.canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    this.picture.canvas.addEventListener("webglcontextrestored", () => {
      this.picture.begin();
      this.picture.holdWords(atlas.words.places);
      this.holdTokens();
      this.draw();
    });
  }

  measure() {
    this.width = this.stage.clientWidth;
    this.height = this.stage.clientHeight;
    this.density = Math.min(window.devicePixelRatio || 1, 2);
    this.aside = [Math.round(((MARGIN - 1) / 2) * this.width), Math.round(((MARGIN - 1) / 2) * this.height)];
    const [width, height] = [this.width + 2 * this.aside[0], this.height + 2 * this.aside[1]];
    Object.assign(this.canvas.style, { left: `${-this.aside[0]}px`, top: `${-this.aside[1]}px`, width: `${width}px`, height: `${height}px` });
    for (const [canvas, across, down] of [[this.canvas, width, height], [this.over, this.width, this.height]]) {
      canvas.width = Math.round(across * this.density);
      canvas.height = Math.round(down * this.density);
    }
  }

  // The tokens of this pane, those that stand out last and so on top.
  holdTokens() {
    const { tokens, colours, look } = this.atlas;
    const palette = colours.palette[look.dark ? "dark" : "light"].map(rgb);
    const state = (i) => this.atlas.stateOf(i);
    this.members = this.atlas.inSight.filter((i) => tokens.pane[i] === this.number).sort((a, b) => state(a) - state(b) || a - b);
    // How much of a token is seen is the share of its nearest words that the map keeps: six tenths where it keeps none, all from half of them on.
    const places = new Float32Array(2 * this.members.length);
    const tints = new Uint8Array(4 * this.members.length);
    const marks = new Uint8Array(2 * this.members.length);
    this.members.forEach((i, k) => {
      places.set([tokens.places[2 * i], tokens.places[2 * i + 1]], 2 * k);
      tints.set([...palette[colours.colour[i]], Math.round(255 * (0.6 + 0.4 * Math.min(1, 2 * tokens.kept[i])))], 4 * k);
      marks.set([colours.shape[i], state(i)], 2 * k);
    });
    this.picture.holdTokens(places, tints, marks);
  }

  draw() {
    if (!this.width || this.picture.gl.isContextLost()) return;
    const { look, play, fitted } = this.atlas;
    const [width, height] = [this.width + 2 * this.aside[0], this.height + 2 * this.aside[1]];
    this.drawn = this.view.copy();
    this.canvas.style.transform = "";
    this.picture.draw(this.view, width, height, {
      ...look, density: this.density, nearness: Math.max(1, this.view.scale / fitted), tokens: !play.frames, size: 18,
    });
    const context = this.canvas.getContext("2d", { alpha: false });
    context.setTransform(this.density, 0, 0, this.density, 0, 0);
    context.fillStyle = look.background;
    context.fillRect(0, 0, width, height);
    context.drawImage(this.picture.canvas, 0, 0, width, height);
    this.drawLabels(context, width, height);
    this.atlas.draws += 1;
  }

  drawLabels(context, width, height) {
    const { words, tokens, look, selected, marked, play } = this.atlas;
    const at = (x, y, text, loud) => ({ text, x: this.view.across(x, width), y: this.view.down(y, height), loud });
    const wanted = marked.map((row) => at(words.places[2 * row], words.places[2 * row + 1], said(words.texts[row]), true));
    const named = (i) => {
      const place = at(tokens.places[2 * i], tokens.places[2 * i + 1], said(words.texts[tokens.near[i * (tokens.near.length / tokens.kept.length)]]), true);
      return { ...place, y: place.y - 17 };
    };
    if (!play.frames) {
      const chosen = this.members.filter((i) => selected.has(i));
      for (const i of chosen.length <= NEIGHBOURS_DRAWN_UP_TO ? chosen : []) this.lines(context, i, width, height);
      const seen = this.members.filter((i) => this.sees(i));
      wanted.push(...(chosen.length <= TOKENS_NAMED_UP_TO ? chosen : []).map(named), ...(seen.length <= TOKENS_NAMED_UP_TO ? seen : []).map(named));
    }
    const half = [width / 2 / this.view.scale, height / 2 / this.view.scale];
    for (let k = 0, found = 0; k < words.order.length && found < 1500; k += 1) {
      const row = words.order[k];
      const [x, y] = [words.places[2 * row], words.places[2 * row + 1]];
      if (Math.abs(x - this.view.x) < half[0] && Math.abs(y - this.view.y) < half[1]) {
        wanted.push(at(x, y, said(words.texts[row]), false));
        found += 1;
      }
    }
    this.labelled = this.atlas.labelling.draw(context, wanted, width, height, look);
  }

  sees(i) {
    const { places } = this.atlas.tokens;
    const [x, y] = [this.view.across(places[2 * i], this.width), this.view.down(places[2 * i + 1], this.height)];
    return x > 0 && x < this.width && y > 0 && y < this.height;
  }

  // From a token to the words that are nearest to it in truth, wherever the map has put them.
  lines(context, i, width, height) {
    const { words, tokens, look } = this.atlas;
    const count = tokens.near.length / tokens.kept.length;
    context.strokeStyle = look.accent;
    context.fillStyle = look.accent;
    context.lineWidth = 1.2;
    for (let k = i * count; k < (i + 1) * count; k += 1) {
      const row = tokens.near[k];
      if (row < 0) continue;
      const [x, y] = [this.view.across(words.places[2 * row], width), this.view.down(words.places[2 * row + 1], height)];
      context.globalAlpha = 0.7;
      context.beginPath();
      context.moveTo(this.view.across(tokens.places[2 * i], width), this.view.down(tokens.places[2 * i + 1], height));
      context.lineTo(x, y);
      context.stroke();
      context.globalAlpha = 1;
      context.beginPath();
      context.arc(x, y, 3, 0, 2 * Math.PI);
      context.fill();
    }
  }

  // Moves the picture where the view has gone; where that is beyond the picture, draws it anew.
  move() {
    const nearer = this.view.scale / this.drawn.scale;
    const across = Math.round((this.drawn.x - this.view.x) * this.view.scale);
    const down = Math.round((this.view.y - this.drawn.y) * this.view.scale);
    const beyond = (side, aside, gone) => nearer * (side / 2 + aside) - Math.abs(gone) < side / 2 - 1;
    if (nearer > 2 || nearer < 0.5 || beyond(this.width, this.aside[0], across) || beyond(this.height, this.aside[1], down)) this.draw();
    else this.canvas.style.transform = nearer === 1 ? `translate(${across}px, ${down}px)` : `translate(${across}px, ${down}px) scale(${nearer})`;
  }

  // What changes at once: the token or word under the pointer, a lasso that is being drawn, a training that is played.
  drawOver() {
    const { hovered, lasso, play, look, words, tokens } = this.atlas;
    const context = this.over.getContext("2d");
    context.setTransform(this.density, 0, 0, this.density, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    this.over.hidden = !(play.frames || hovered || lasso);
    if (play.frames && this.number === 0) play.draw(context, this.view, this.width, this.height, look);
    if (hovered && (hovered.kind === "word" || tokens.pane[hovered.i] === this.number)) {
      const places = hovered.kind === "word" ? words.places : tokens.places;
      if (hovered.kind === "token") this.lines(context, hovered.i, this.width, this.height);
      context.beginPath();
      context.arc(this.view.across(places[2 * hovered.i], this.width), this.view.down(places[2 * hovered.i + 1], this.height), hovered.kind === "word" ? 5 : 11, 0, 2 * Math.PI);
      context.lineWidth = 2;
      context.strokeStyle = look.text;
      context.stroke();
    }
    if (lasso?.length > 1) {
      context.beginPath();
      for (const [x, y] of lasso) context.lineTo(this.view.across(x, this.width), this.view.down(y, this.height));
      context.closePath();
      context.globalAlpha = 0.15;
      context.fillStyle = look.accent;
      context.fill();
      context.globalAlpha = 1;
      context.lineWidth = 2;
      context.setLineDash([5, 4]);
      context.strokeStyle = look.accent;
      context.stroke();
      context.setLineDash([]);
    }
  }
}
