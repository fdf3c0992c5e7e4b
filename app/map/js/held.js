// What Python sent once, by key: arrays and texts that several components of the page share, and that no redraw sends again.
const HELD = (window[Symbol.for("soft-prompt-explorer")] ??= { things: new Map(), waiting: new Set() });
const MOST_HELD = 24;
const KINDS = { f4: Float32Array, i4: Int32Array, u4: Uint32Array, u2: Uint16Array, u1: Uint8Array };

// Bytes as app/map/payload.py packs them: 32 letters of key, the length of the header, the header, the arrays.
function hold(packed) {
  const bytes = packed.slice(); // begins at 0, so that the arrays lie at multiples of their sizes
  const text = new TextDecoder();
  const key = text.decode(bytes.subarray(0, 32));
  if (!HELD.things.has(key)) {
    const length = new DataView(bytes.buffer).getUint32(32, true);
    const header = JSON.parse(text.decode(bytes.subarray(40, 40 + length)));
    const thing = header.texts;
    for (const [name, [kind, start, count]] of Object.entries(header.arrays)) {
      thing[name] = new KINDS[kind](bytes.buffer, 40 + length + start, count);
    }
    HELD.things.set(key, thing);
    while (HELD.things.size > MOST_HELD) HELD.things.delete(HELD.things.keys().next().value);
  }
  for (const tell of [...HELD.waiting]) tell();
}

// Calls back once all of these keys are held.
function whenHeld(keys, callback) {
  const wanted = keys.filter(Boolean);
  const look = () => {
    if (!wanted.every((key) => HELD.things.has(key))) return;
    HELD.waiting.delete(look);
    for (const key of wanted) { // the latest used are kept longest
      const thing = HELD.things.get(key);
      HELD.things.delete(key);
      HELD.things.set(key, thing);
    }
    callback(...keys.map((key) => (key ? HELD.things.get(key) : null)));
  };
  HELD.waiting.add(look);
  look();
  return () => HELD.waiting.delete(look);
}
