// The shapes of marks, as numbers for the shader and as paths for a canvas: what a colour says, a shape says too.
const SHAPES = ["circle", "square", "diamond", "triangle-up", "star", "cross", "hexagon", "triangle-down", "x", "circle-open"];

function polygon(context, x, y, radius, corners, turned, inner) {
  const points = inner ? 2 * corners : corners;
  for (let i = 0; i < points; i += 1) {
    const angle = turned + (2 * Math.PI * i) / points;
    const r = inner && i % 2 ? inner * radius : radius;
    context.lineTo(x + r * Math.sin(angle), y - r * Math.cos(angle));
  }
  context.closePath();
}

function mark(context, shape, x, y, radius, colour, outline) {
  context.beginPath();
  const arm = radius / 3;
  if (shape === "square") context.rect(x - 0.85 * radius, y - 0.85 * radius, 1.7 * radius, 1.7 * radius);
  else if (shape === "diamond") polygon(context, x, y, 1.15 * radius, 4, 0);
  else if (shape === "triangle-up") polygon(context, x, y + 0.15 * radius, 1.2 * radius, 3, 0);
  else if (shape === "triangle-down") polygon(context, x, y - 0.15 * radius, 1.2 * radius, 3, Math.PI);
  else if (shape === "hexagon") polygon(context, x, y, radius, 6, 0);
  else if (shape === "star") polygon(context, x, y, 1.2 * radius, 5, 0, 0.45);
  else if (shape === "cross" || shape === "x") {
    context.save();
    context.translate(x, y);
    if (shape === "x") context.rotate(Math.PI / 4);
    const corners = [[-arm, -radius], [arm, -radius], [arm, -arm], [radius, -arm], [radius, arm], [arm, arm], [arm, radius], [-arm, radius],
      [-arm, arm], [-radius, arm], [-radius, -arm], [-arm, -arm]];
    for (const [a, b] of corners) context.lineTo(a, b);
    context.closePath();
    context.restore();
  } else context.arc(x, y, shape === "circle-open" ? 0.8 * radius : radius, 0, 2 * Math.PI);
  context.lineJoin = "round";
  if (shape === "circle-open") {
    context.lineWidth = radius / 2.5;
    context.strokeStyle = colour;
    context.stroke();
    return;
  }
  if (outline) {
    context.lineWidth = 2;
    context.strokeStyle = outline;
    context.stroke();
  }
  context.fillStyle = colour;
  context.fill();
}

function rgb(colour) {
  return [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
}
