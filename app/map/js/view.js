// Which part of the map is seen: its centre on the map and the pixels to a unit. Panes beside each other share one.
class View {
  constructor() {
    this.x = 0;
    this.y = 0;
    this.scale = 1;
    this.smallest = 0;
    this.largest = Infinity;
  }

  copy() {
    return Object.assign(new View(), this);
  }

  // All of [left, bottom, right, top] in a window of so many pixels.
  fit([left, bottom, right, top], width, height) {
    this.x = (left + right) / 2;
    this.y = (bottom + top) / 2;
    const scale = 0.94 * Math.min(width / Math.max(right - left, 1e-6), height / Math.max(top - bottom, 1e-6));
    this.scale = Math.min(Math.max(scale, this.smallest), this.largest);
  }

  pan(dx, dy, bounds) {
    this.x = Math.min(Math.max(this.x - dx / this.scale, bounds[0]), bounds[2]);
    this.y = Math.min(Math.max(this.y + dy / this.scale, bounds[1]), bounds[3]);
  }

  // Nearer by a factor, the place at (dx, dy) from the centre of the window staying where it is.
  zoom(factor, dx = 0, dy = 0) {
    const scale = Math.min(Math.max(this.scale * factor, this.smallest), this.largest);
    this.x += dx / this.scale - dx / scale;
    this.y -= dy / this.scale - dy / scale;
    this.scale = scale;
  }

  across(x, width) {
    return (x - this.x) * this.scale + width / 2;
  }

  down(y, height) {
    return (this.y - y) * this.scale + height / 2;
  }
}

// Places by cell, to find those near one without looking at all.
class Grid {
  constructor(places) {
    this.places = places;
    const count = places.length / 2;
    this.box = boundsOf(places);
    this.side = Math.max(1, Math.min(512, Math.round(Math.sqrt(count / 4))));
    const [left, bottom, right, top] = this.box;
    this.cell = Math.max(right - left, top - bottom, 1e-6) / this.side;
    const cells = this.side * this.side;
    this.starts = new Int32Array(cells + 1);
    const cellOf = new Int32Array(count);
    for (let i = 0; i < count; i += 1) {
      cellOf[i] = this.row(places[2 * i + 1]) * this.side + this.column(places[2 * i]);
      this.starts[cellOf[i] + 1] += 1;
    }
    for (let i = 0; i < cells; i += 1) this.starts[i + 1] += this.starts[i];
    const next = this.starts.slice();
    this.members = new Int32Array(count);
    for (let i = 0; i < count; i += 1) this.members[next[cellOf[i]]++] = i;
  }

  column(x) {
    return Math.min(this.side - 1, Math.max(0, Math.floor((x - this.box[0]) / this.cell)));
  }

  row(y) {
    return Math.min(this.side - 1, Math.max(0, Math.floor((y - this.box[1]) / this.cell)));
  }

  // The nearest to (x, y) within a radius; -1 where there is none.
  nearest(x, y, radius) {
    let best = -1;
    let least = radius * radius;
    for (let row = this.row(y - radius); row <= this.row(y + radius); row += 1) {
      for (let column = this.column(x - radius); column <= this.column(x + radius); column += 1) {
        const cell = row * this.side + column;
        for (let k = this.starts[cell]; k < this.starts[cell + 1]; k += 1) {
          const i = this.members[k];
          const distance = (this.places[2 * i] - x) ** 2 + (this.places[2 * i + 1] - y) ** 2;
          if (distance < least) [best, least] = [i, distance];
        }
      }
    }
    return best;
  }
}

function boundsOf(places) {
  let [left, bottom, right, top] = [Infinity, Infinity, -Infinity, -Infinity];
  for (let i = 0; i < places.length; i += 2) {
    left = Math.min(left, places[i]);
    right = Math.max(right, places[i]);
    bottom = Math.min(bottom, places[i + 1]);
    top = Math.max(top, places[i + 1]);
  }
  return places.length ? [left, bottom, right, top] : [0, 0, 1, 1];
}

function isInside(x, y, path) {
  let inside = false;
  for (let i = 0, j = path.length - 1; i < path.length; j = i, i += 1) {
    const [ax, ay] = path[i];
    const [bx, by] = path[j];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
  }
  return inside;
}
