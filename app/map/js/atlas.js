// The map as an instrument: one or two panes that share a view, a selection and a lasso. Text of others is set as text and never as HTML.
const STILL = 120; // milliseconds after which a moved picture is drawn anew
const A_CLICK = 4; // pixels that a click may move
const NEAR = { mouse: 10, pen: 14, touch: 20 }; // pixels from a mark that count as on it
const LEGEND = 14; // groups that are listed before the rest is counted

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// Numbers as a link holds them (0-4,9), and back; as app/parts/selections.py writes them.
function ranges(numbers) {
  const parts = [];
  for (const number of [...numbers].sort((a, b) => a - b)) {
    if (parts.length && number === parts.at(-1)[1] + 1) parts.at(-1)[1] = number;
    else parts.push([number, number]);
  }
  return parts.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(",");
}

function numbersIn(text) {
  return text.split(",").filter(Boolean).flatMap((part) => {
    const [first, last = first] = part.split("-").map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}

class Atlas {
  constructor(root) {
    this.root = root;
    this.view = new View();
    this.labelling = new Labels();
    this.selected = new Set();
    this.marked = [];
    this.pointers = new Map();
    this.draws = 0;
    this.turn = -1;
    this.panes = [];
    this.stages = element("div", { class: "stages" });
    this.legend = element("div", { class: "legend", role: "group", "aria-label": "Legend: a click selects" });
    this.status = element("p", { class: "status", role: "status" });
    this.tip = element("div", { class: "tip", hidden: "" });
    this.help = element("details", {}, element("summary", {}, "Keys and gestures"),
      "Drag or arrow keys move, wheel, pinch or + and − zoom, 0 shows all. L draws a lasso (or hold Shift), N and P go from token to token, Enter selects, Escape lets go. Ctrl adds to what is selected.");
    const box = element("div", { class: "played", hidden: "", role: "group", "aria-label": "The training on the map" });
    root.append(this.tools(), this.stages, box, this.legend, this.status, this.help, this.tip);
    this.play = new Play(this, box);
    this.resized = new ResizeObserver(() => this.panes.length && this.words && this.measure());
    this.resized.observe(this.stages);
  }

  tools() {
    const button = (text, label, act) => {
      const made = element("button", { type: "button", class: "tool", "aria-label": label, title: label }, text);
      made.addEventListener("click", act);
      return made;
    };
    this.lassoing = button("Lasso", "Lasso (L): draw around tokens to select them", () => this.setLasso(!this.isLasso));
    this.lassoing.setAttribute("aria-pressed", "false");
    return element("div", { class: "tools", role: "toolbar", "aria-label": "Map" },
      this.lassoing,
      button("+", "Nearer (+)", () => this.zoom(1.6)),
      button("−", "Farther (−)", () => this.zoom(1 / 1.6)),
      button("All words", "Show all words (0)", () => this.fit()),
      button("Tokens", "Show all tokens", () => this.fitTokens()),
      button("Clear", "Let go of what is selected (Escape)", () => this.select([])));
  }

  // What Python asks for: keys of what it has sent, and settings. See app/map/component.py.
  update(data, tell) {
    this.tell = tell;
    this.cancel?.();
    this.cancel = whenHeld([data.words, data.tokens, data.colours, data.frames], (...held) => this.show(data, ...held));
  }

  show(data, words, tokens, colours, frames) {
    const style = getComputedStyle(this.root);
    const [background, text] = ["--st-background-color", "--st-text-color"].map((name) => asHex(style.getPropertyValue(name)));
    const [red, green, blue] = rgb(background);
    const dark = 0.3 * red + 0.59 * green + 0.11 * blue < 128;
    this.look = { ...data.look[dark ? "dark" : "light"], dark, background, text, font: style.fontFamily };
    this.root.style.setProperty("--height", `${data.height}px`);
    for (const name of ["accent", "background", "text"]) this.root.style.setProperty(`--${name}`, this.look[name]);
    if (this.panes.length !== data.panes.length) this.setPanes(data.panes.length);
    if (this.panes.some((pane) => !pane.picture.gl)) return this.refuse();
    const others = tokens !== this.tokens;
    Object.assign(this, { tokens, colours });
    this.inSight = data.shown === null ? Array.from(tokens.kept, (_, i) => i) : numbersIn(data.shown);
    this.marked = data.marked;
    if (others || data.turn !== this.turn) this.selected = new Set(numbersIn(data.selected));
    this.turn = data.turn;
    const first = words !== this.words;
    this.words = words;
    if (first) {
      this.grid = new Grid(words.places);
      for (const pane of this.panes) pane.picture.holdWords(words.places);
    }
    this.panes.forEach((pane, i) => {
      pane.title.textContent = data.panes[i];
      pane.title.hidden = !data.panes[i];
      pane.stage.setAttribute("aria-label", data.panes[i] ? `${data.panes[i]}. ${data.alt}` : data.alt);
    });
    this.play.hold(frames);
    this.hovered = null;
    this.tip.hidden = true;
    this.drawLegend();
    this.holdTokens();
    this.measure(first);
    return this.note();
  }

  setPanes(count) {
    this.panes.forEach((pane) => pane.picture.end());
    this.panes = Array.from({ length: count }, (_, i) => new Pane(this, i));
    this.stages.replaceChildren(...this.panes.map((pane) => pane.stage));
    this.stages.dataset.panes = count;
    this.panes.forEach((pane) => listen(this, pane));
    this.words = null;
  }

  refuse() {
    const sentence = "This browser cannot draw the map: it offers no WebGL 2. What stands beside it can be read without; another browser, or one with hardware acceleration switched on, draws it.";
    this.root.replaceChildren(element("p", { class: "refusal", role: "note" }, sentence));
    this.resized.disconnect();
  }

  measure(first) {
    this.panes.forEach((pane) => pane.measure());
    const { width, height } = this.panes[0];
    if (!width) return;
    const whole = new View();
    whole.fit(this.grid.box, width, height);
    this.fitted = whole.scale;
    Object.assign(this.view, { smallest: whole.scale / 2, largest: whole.scale * 500 });
    if (first) this.view.fit(this.grid.box, width, height);
    this.draw();
  }

  stateOf(i) {
    if (this.selected.has(i)) return 2;
    if (this.lit !== undefined && this.lit !== null) return this.colours.group[i] === this.lit ? 1 : 0;
    return this.selected.size ? 0 : 1;
  }

  holdTokens() {
    this.panes.forEach((pane) => pane.holdTokens());
  }

  draw() {
    clearTimeout(this.settling);
    this.panes.forEach((pane) => pane.draw());
    this.drawOver();
    this.note();
  }

  drawOver() {
    if (this.words) this.panes.forEach((pane) => pane.width && pane.drawOver());
  }

  // The view has changed: what is drawn moves at the next frame, and is drawn anew when all is still.
  moved() {
    this.framing ??= requestAnimationFrame(() => {
      this.framing = null;
      this.panes.forEach((pane) => pane.move());
      if (this.play.frames) this.drawOver();
    });
    clearTimeout(this.settling);
    if (!this.pointers.size) this.settling = setTimeout(() => this.draw(), STILL); // else when the finger is lifted
  }

  zoom(factor, dx, dy) {
    this.view.zoom(factor, dx, dy);
    this.moved();
  }

  pan(dx, dy) {
    this.view.pan(dx, dy, this.grid.box);
    this.moved();
  }

  fit(box = this.grid.box) {
    this.view.fit(box, this.panes[0].width, this.panes[0].height);
    this.draw();
  }

  fitTokens() {
    const chosen = this.selected.size ? [...this.selected] : this.inSight;
    const box = boundsOf(Float32Array.from(chosen.flatMap((i) => [this.tokens.places[2 * i], this.tokens.places[2 * i + 1]])));
    const room = 0.15 * Math.max(box[2] - box[0], box[3] - box[1], (30 * 4) / this.fitted / 4);
    this.fit([box[0] - room, box[1] - room, box[2] + room, box[3] + room]);
  }

  setLasso(on) {
    this.isLasso = on;
    this.lassoing.setAttribute("aria-pressed", String(on));
    this.root.classList.toggle("lassoing", on);
  }

  // What a person has chosen here; Python hears of it, and the map is not redrawn by the answer.
  select(chosen, adding = false) {
    this.selected = new Set(adding ? [...this.selected, ...chosen] : chosen);
    this.holdTokens();
    this.draw();
    const count = this.selected.size;
    this.status.textContent = count ? `${count} token${count > 1 ? "s" : ""} selected` : "Nothing selected";
    this.tell(ranges(this.selected));
  }

  toggle(i, adding) {
    const rest = adding ? [...this.selected] : [];
    this.select(this.selected.has(i) && (adding || this.selected.size === 1) ? rest.filter((other) => other !== i) : [...rest, i]);
  }

  // The token nearest to a place in a pane, or else the word; null where neither is near.
  at(pane, x, y, radius) {
    const [mx, my] = [this.view.x + (x - pane.width / 2) / this.view.scale, this.view.y - (y - pane.height / 2) / this.view.scale];
    const within = radius / this.view.scale;
    let [best, least] = [-1, within ** 2];
    if (!this.play.frames) {
      for (const i of pane.members) {
        const distance = (this.tokens.places[2 * i] - mx) ** 2 + (this.tokens.places[2 * i + 1] - my) ** 2;
        if (distance <= least) [best, least] = [i, distance];
      }
    }
    if (best >= 0) return { kind: "token", i: best };
    const word = this.grid.nearest(mx, my, within);
    return word >= 0 ? { kind: "word", i: word } : null;
  }

  hover(pane, found) {
    const same = found?.kind === this.hovered?.kind && found?.i === this.hovered?.i;
    this.hovered = found;
    if (!same) this.drawOver();
    this.tip.hidden = !found;
    if (!found) return;
    const places = found.kind === "word" ? this.words.places : this.tokens.places;
    if (!same) this.tip.replaceChildren(...this.told(found).map((line, i) => element(i ? "div" : "b", {}, line)));
    const x = this.view.across(places[2 * found.i], pane.width) + pane.stage.offsetLeft;
    const y = this.view.down(places[2 * found.i + 1], pane.height) + pane.stage.offsetTop;
    const room = this.root.clientWidth - this.tip.offsetWidth - 4;
    this.tip.style.left = `${Math.max(4, Math.min(x + 14, room))}px`;
    this.tip.style.top = `${y + 16}px`;
  }

  told({ kind, i }) {
    if (kind === "word") return [this.words.texts[i]];
    const { tokens, colours } = this;
    const value = colours.scale ? `${colours.scale.name}: ${format(colours.value[i])}` : `${colours.by}: ${colours.groups[colours.group[i]].name}`;
    const count = tokens.near.length / tokens.kept.length;
    return [`${tokens.prompts[tokens.prompt[i]]}, virtual token ${tokens.position[i]}`, tokens.texts[i], value, `The map keeps ${Math.round(count * tokens.kept[i])} of its ${count} nearest words beside it.`];
  }

  // Goes to the next token that is in sight, for the keyboard.
  step(pane, by) {
    const order = [...pane.members].sort((a, b) => a - b);
    if (!order.length) return;
    const now = this.hovered?.kind === "token" ? order.indexOf(this.hovered.i) : by > 0 ? -1 : 0;
    const i = order[(now + by + order.length) % order.length];
    if (!pane.sees(i)) {
      [this.view.x, this.view.y] = [this.tokens.places[2 * i], this.tokens.places[2 * i + 1]];
      this.draw();
    }
    this.hover(pane, { kind: "token", i });
    this.status.textContent = this.told(this.hovered).join(". ");
  }

  drawLegend() {
    const { colours, look } = this;
    const palette = colours.palette[look.dark ? "dark" : "light"];
    if (colours.scale) {
      const bar = element("span", { class: "scale", style: `background: linear-gradient(90deg, ${palette.join(", ")})` });
      this.legend.replaceChildren(colours.scale.name, format(colours.scale.low), bar, format(colours.scale.high));
      return;
    }
    const counts = new Map();
    for (const i of this.inSight) counts.set(colours.group[i], (counts.get(colours.group[i]) ?? 0) + 1);
    const light = (group) => () => {
      this.lit = group;
      this.holdTokens();
      this.panes.forEach((pane) => pane.draw());
    };
    const entries = colours.groups.map((group, g) => [group, g]).filter(([, g]) => counts.has(g));
    const shown = this.wholeLegend ? entries : entries.slice(0, LEGEND);
    const buttons = shown.map(([group, g]) => {
      const sign = element("canvas", { width: 32, height: 32, "aria-hidden": "true" });
      mark(sign.getContext("2d"), SHAPES[group.shape], 16, 16, 11, palette[group.colour]);
      const made = element("button", { type: "button" }, sign, `${group.name} `, element("small", {}, String(counts.get(g))));
      for (const [event, value] of [["mouseenter", g], ["focus", g], ["mouseleave", null], ["blur", null]]) made.addEventListener(event, light(value));
      made.addEventListener("click", (event) => this.select(this.inSight.filter((i) => colours.group[i] === g), event.shiftKey));
      return made;
    });
    if (shown.length < entries.length) {
      const more = element("button", { type: "button" }, `${entries.length - shown.length} more`);
      more.addEventListener("click", () => {
        this.wholeLegend = true;
        this.drawLegend();
      });
      buttons.push(more);
    }
    this.legend.replaceChildren(...buttons);
  }

  note() {
    Object.assign(this.root.dataset, { words: this.words.places.length / 2, tokens: this.inSight.length, selected: ranges(this.selected), draws: this.draws });
  }

  end() {
    this.cancel?.();
    this.play.pause();
    this.resized.disconnect();
    clearTimeout(this.settling);
    this.panes.forEach((pane) => pane.picture.end());
  }
}

function format(value) {
  return Number.isFinite(value) ? String(Number(value.toPrecision(3))) : "–";
}

// A colour of any notation as #rrggbb.
function asHex(colour) {
  const context = document.createElement("canvas").getContext("2d");
  context.fillStyle = colour.trim();
  return context.fillStyle.startsWith("#") ? context.fillStyle : "#ffffff";
}

export default function ({ data, parentElement, setStateValue }) {
  const root = parentElement.querySelector(".atlas");
  root.atlas ??= new Atlas(root);
  root.atlas.update(data, (selected) => setStateValue("selected", selected));
  return () => root.atlas.end();
}
