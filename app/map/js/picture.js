// The picture of a pane by WebGL2: the words drawn once into a texture, the tokens over a copy of it.
const WORDS_VERTEX = `#version 300 es
in vec2 at;
uniform vec3 view; // centre and clip units to a unit of the map, across
uniform float aspect, size;
void main() {
  gl_Position = vec4((at.x - view.x) * view.z, (at.y - view.y) * view.z * aspect, 0.0, 1.0);
  gl_PointSize = size;
}`;
const WORDS_FRAGMENT = `#version 300 es
precision mediump float;
uniform vec4 colour;
out vec4 shown;
void main() {
  vec2 off = gl_PointCoord - 0.5;
  if (dot(off, off) > 0.25) discard;
  shown = vec4(colour.rgb * colour.a, colour.a);
}`;
const TOKENS_VERTEX = `#version 300 es
in vec2 at;
in vec4 colour;
in vec2 mark; // the shape, and whether it is lit: 0 dimmed, 1 as it is, 2 selected
uniform vec3 view;
uniform float aspect, size;
out vec4 tint;
flat out vec2 kind;
void main() {
  gl_Position = vec4((at.x - view.x) * view.z, (at.y - view.y) * view.z * aspect, 0.0, 1.0);
  gl_PointSize = size * (mark.y > 1.5 ? 1.45 : 1.0);
  tint = colour;
  kind = mark;
}`;
// Distances from a shape's edge, in a square from -1 to 1 with the shape in its inner 0.7: negative is inside.
const TOKENS_FRAGMENT = `#version 300 es
precision highp float;
in vec4 tint;
flat in vec2 kind;
uniform vec3 outline, ring;
uniform float size;
out vec4 shown;
float polygon(vec2 p, float corners, float turned, float radius) {
  float step = 6.2831853 / corners;
  float angle = atan(p.x, p.y) + turned;
  angle = mod(angle + step / 2.0, step) - step / 2.0;
  return length(p) * cos(angle) - radius;
}
float star(vec2 p) {
  float step = 6.2831853 / 5.0;
  float angle = abs(mod(atan(p.x, p.y) + step / 2.0, step) - step / 2.0);
  vec2 q = length(p) * vec2(sin(angle), cos(angle));
  vec2 tip = vec2(0.0, 0.84), dent = 0.4 * vec2(sin(step / 2.0), cos(step / 2.0));
  vec2 edge = normalize(dent - tip);
  return dot(q - tip, vec2(-edge.y, edge.x));
}
float cross2(vec2 p) {
  p = abs(p);
  return min(max(p.x - 0.66, p.y - 0.24), max(p.x - 0.24, p.y - 0.66));
}
float shape(vec2 p, int which) {
  if (which == 1) return max(abs(p.x), abs(p.y)) - 0.56;
  if (which == 2) return (abs(p.x) + abs(p.y) - 0.76) * 0.7071;
  if (which == 3) return polygon(p + vec2(0.0, 0.1), 3.0, 3.14159265, 0.4);
  if (which == 4) return star(p);
  if (which == 5) return cross2(p);
  if (which == 6) return polygon(p, 6.0, 0.0, 0.58);
  if (which == 7) return polygon(p - vec2(0.0, 0.1), 3.0, 0.0, 0.4);
  if (which == 8) return cross2(vec2(p.x + p.y, p.x - p.y) * 0.7071);
  if (which == 9) return abs(length(p) - 0.5) - 0.13;
  return length(p) - 0.64;
}
void main() {
  vec2 p = (gl_PointCoord - 0.5) * vec2(2.0, -2.0);
  float grown = kind.y > 1.5 ? 1.45 : 1.0;
  float pixel = 2.0 / (size * grown);
  float edge = shape(p, int(kind.x + 0.5));
  float inside = clamp(0.5 - edge / pixel, 0.0, 1.0);
  float around = clamp(0.5 - (edge - 1.3 * pixel * (kind.y > 1.5 ? 1.8 : 1.0)) / pixel, 0.0, 1.0);
  float alpha = tint.a * (kind.y < 0.5 ? 0.3 : 1.0);
  vec3 rim = kind.y > 1.5 ? ring : outline;
  float cover = mix(around * (kind.y > 1.5 ? 1.0 : 0.8 * alpha), max(alpha, kind.y > 1.5 ? 1.0 : 0.0), inside);
  if (cover < 0.01) discard;
  shown = vec4(mix(rim, tint.rgb, inside) * cover, cover);
}`;
const ALL_AT_ONCE = 60_000; // words up to which a dot is drawn at full size

class Picture {
  constructor(canvas) {
    this.canvas = canvas;
    this.gl = canvas.getContext("webgl2", { antialias: false, depth: false, alpha: true, premultipliedAlpha: true });
    if (this.gl) this.begin();
  }

  begin() {
    const gl = this.gl;
    this.words = this.program(WORDS_VERTEX, WORDS_FRAGMENT, ["at"], ["view", "aspect", "size", "colour"]);
    this.tokens = this.program(TOKENS_VERTEX, TOKENS_FRAGMENT, ["at", "colour", "mark"], ["view", "aspect", "size", "outline", "ring"]);
    this.texture = gl.createTexture();
    this.target = gl.createFramebuffer();
    this.wordCount = this.tokenCount = 0;
    this.painted = "";
  }

  program(vertex, fragment, attributes, uniforms) {
    const gl = this.gl;
    const program = gl.createProgram();
    for (const [type, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(type);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    attributes.forEach((name, i) => gl.bindAttribLocation(program, i, name));
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) throw new Error(gl.getProgramInfoLog(program));
    const made = { program, array: gl.createVertexArray(), buffers: attributes.map(() => gl.createBuffer()) };
    for (const name of uniforms) made[name] = gl.getUniformLocation(program, name);
    return made;
  }

  fill(program, i, data, parts, type, normalised) {
    const gl = this.gl;
    gl.bindVertexArray(program.array);
    gl.bindBuffer(gl.ARRAY_BUFFER, program.buffers[i]);
    gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(i);
    gl.vertexAttribPointer(i, parts, type, normalised, 0, 0);
  }

  holdWords(places) {
    this.wordCount = places.length / 2;
    this.painted = "";
    this.fill(this.words, 0, places, 2, this.gl.FLOAT, false);
  }

  holdTokens(places, colours, marks) {
    this.tokenCount = places.length / 2;
    this.fill(this.tokens, 0, places, 2, this.gl.FLOAT, false);
    this.fill(this.tokens, 1, colours, 4, this.gl.UNSIGNED_BYTE, true);
    this.holdMarks(marks);
  }

  holdMarks(marks) {
    this.fill(this.tokens, 2, marks, 2, this.gl.UNSIGNED_BYTE, false);
  }

  // Draws what `view` shows of a window of width × height CSS pixels, and `margin` times that on either side.
  draw(view, width, height, look) {
    const gl = this.gl;
    const across = Math.max(1, Math.round(width * look.density));
    const down = Math.max(1, Math.round(height * look.density));
    if (this.canvas.width !== across || this.canvas.height !== down) {
      this.canvas.width = across;
      this.canvas.height = down;
    }
    const use = (program, size) => {
      gl.useProgram(program.program);
      gl.bindVertexArray(program.array);
      gl.uniform3f(program.view, view.x, view.y, (2 * view.scale) / width);
      gl.uniform1f(program.aspect, width / height);
      gl.uniform1f(program.size, size * look.density);
    };
    gl.viewport(0, 0, across, down);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    const painting = [view.x, view.y, view.scale, across, down, look.words, look.nearness].join();
    if (painting !== this.painted) {
      gl.bindTexture(gl.TEXTURE_2D, this.texture);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, across, down, 0, gl.RGBA, gl.UNSIGNED_BYTE, null);
      gl.bindFramebuffer(gl.FRAMEBUFFER, this.target);
      gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, this.texture, 0);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT);
      const crowd = Math.min(1, Math.sqrt(ALL_AT_ONCE / Math.max(1, this.wordCount)));
      use(this.words, Math.min(6, (1.2 + 1.1 * crowd) * look.nearness ** 0.3));
      gl.uniform4f(this.words.colour, ...rgb(look.words).map((part) => part / 255), Math.min(0.75, (0.16 + 0.12 * crowd) * look.nearness ** 0.35));
      gl.drawArrays(gl.POINTS, 0, this.wordCount);
      this.painted = painting;
    }
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT); // else Chromium clears what is copied here at the first point that is drawn over it
    gl.bindFramebuffer(gl.READ_FRAMEBUFFER, this.target);
    gl.blitFramebuffer(0, 0, across, down, 0, 0, across, down, gl.COLOR_BUFFER_BIT, gl.NEAREST);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    if (this.tokenCount && look.tokens) {
      use(this.tokens, look.size);
      gl.uniform3f(this.tokens.outline, ...rgb(look.background).map((part) => part / 255));
      gl.uniform3f(this.tokens.ring, ...rgb(look.text).map((part) => part / 255));
      gl.drawArrays(gl.POINTS, 0, this.tokenCount);
    }
  }

  end() {
    this.gl?.getExtension("WEBGL_lose_context")?.loseContext();
  }
}
