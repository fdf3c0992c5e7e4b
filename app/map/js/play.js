// A training that is played over the map: where each token was at each kept step, with its nearest word.
const A_STEP = 160; // milliseconds
const A_STEP_CALMLY = 700; // where less motion is wished for: each step stands, and nothing glides

class Play {
  constructor(atlas, box) {
    this.atlas = atlas;
    this.box = box;
    this.at = 0;
    this.button = element("button", { type: "button", class: "tool" }, "Play");
    this.slider = element("input", { type: "range", min: 0, step: 1, value: 0, "aria-label": "Step of the training" });
    this.said = element("output", {});
    box.append(this.button, this.slider, this.said);
    this.button.addEventListener("click", () => (this.timer ? this.pause() : this.play()));
    this.slider.addEventListener("input", () => {
      this.pause();
      this.show(Number(this.slider.value));
    });
  }

  hold(frames) {
    if (frames === this.frames) return;
    this.pause();
    this.frames = frames;
    this.box.hidden = !frames;
    if (!frames) return;
    this.tokens = frames.places.length / 2 / frames.steps.length;
    this.slider.max = frames.steps.length - 1;
    this.show(0);
  }

  play() {
    const last = this.frames.steps.length - 1;
    if (this.at >= last) this.at = 0;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const began = performance.now();
    const from = this.at;
    const go = (now) => {
      const steps = Math.max(0, now - began) / (calm ? A_STEP_CALMLY : A_STEP);
      this.show(Math.min(last, from + (calm ? Math.floor(steps) : steps)));
      if (this.at >= last) this.pause();
      else this.timer = requestAnimationFrame(go);
    };
    this.timer = requestAnimationFrame(go);
    this.button.textContent = "Pause";
  }

  pause() {
    cancelAnimationFrame(this.timer ?? 0);
    this.timer = null;
    this.button.textContent = "Play";
  }

  show(at) {
    this.at = at;
    const step = Math.floor(at);
    this.slider.value = step;
    const text = `step ${this.frames.steps[step]} of ${this.frames.steps[this.frames.steps.length - 1]}`;
    if (this.said.textContent !== text) {
      this.said.textContent = text;
      this.slider.setAttribute("aria-valuetext", text);
    }
    this.atlas.drawOver();
  }

  // Where a token is now, between two kept steps.
  place(token) {
    const { places, steps } = this.frames;
    const step = Math.floor(this.at);
    const next = Math.min(step + 1, steps.length - 1);
    const share = this.at - step;
    return [0, 1].map((k) => (1 - share) * places[2 * (step * this.tokens + token) + k] + share * places[2 * (next * this.tokens + token) + k]);
  }

  draw(context, view, width, height, look) {
    const { places, steps, words, word } = this.frames;
    const step = Math.floor(this.at);
    context.lineWidth = 1.5;
    context.strokeStyle = look.trail;
    for (let token = 0; token < this.tokens; token += 1) {
      context.beginPath();
      for (let i = 0; i < steps.length; i += 1) {
        context.lineTo(view.across(places[2 * (i * this.tokens + token)], width), view.down(places[2 * (i * this.tokens + token) + 1], height));
      }
      context.stroke();
    }
    const wanted = [];
    for (let token = 0; token < this.tokens; token += 1) {
      const [x, y] = this.place(token);
      const [across, down] = [view.across(x, width), view.down(y, height)];
      mark(context, "circle", across, down, 6, look.moving, look.background);
      wanted.push({ text: `${token}: ${said(words[word[step * this.tokens + token]])}`, x: across, y: down - 16, loud: true });
    }
    this.atlas.labelling.draw(context, wanted, width, height, look);
  }
}
