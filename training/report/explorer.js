"use strict";

/** Pixels of a data URL: a promise of {width, height, data}. */
function pixels(url) {
  return new Promise((resolve) => {
    const image = new Image();
    image.onload = () => {
      const canvas = make("canvas", { width: image.naturalWidth, height: image.naturalHeight });
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0);
      resolve(context.getImageData(0, 0, canvas.width, canvas.height));
    };
    image.src = url;
  });
}

/** For each pixel the latent whose colour it has. */
function owners(picture, colours) {
  const table = new Map(colours.map((colour, index) => [(colour[0] << 16) | (colour[1] << 8) | colour[2], index]));
  const found = new Uint16Array(picture.width * picture.height);
  for (let place = 0; place < found.length; place++) {
    const [red, green, blue] = picture.data.subarray(4 * place, 4 * place + 3);
    found[place] = table.get((red << 16) | (green << 8) | blue);
  }
  return found;
}

/** Samples with their attention maps: choose a sample, a layer and a head; hover, tap or use arrow keys to see what a latent owns. */
class Explorer {
  constructor(data) {
    this.data = data;
    this.sample = this.layer = this.head = 0;
    this.opacity = 0.6;
    this.chosen = null;
    this.probe = null;
    this.image = make("img", { alt: "generated sample" });
    this.canvas = make("canvas", { tabindex: 0, role: "img", "aria-label": `attention map; arrow keys move a probe that names the ${data.attended}` });
    this.reading = make("p", { class: "reading", "aria-live": "polite" });
    this.canvas.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.addEventListener("pointerdown", (event) => this.point(event));
    this.canvas.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && this.choose(null)); // a lifted finger leaves too
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.element = this.layout();
    this.samples.pick(0);
    this.choose(null);
  }

  layout() {
    const { samples, colours } = this.data;
    const layers = samples[0].layers;
    const names = samples.map((sample) => `sample ${sample.number}`);
    this.samples = choice(samples.map((sample) => make("img", { src: sample.src, alt: "" })), names, (index) => this.show({ sample: index }));
    const last = layers.length - 1;
    this.layers = slider("layer", layers.length, last, (index) => {
      this.show({ layer: index });
      const size = this.data.grids[index];
      return `${index + 1} of ${layers.length}` + (size ? ` (${size} × ${size})` : "");
    });
    const heads = slider("head", layers[0].length, 0, (index) => {
      this.show({ head: index });
      return `${index + 1} of ${layers[0].length}`;
    });
    const blend = slider("map", 101, 60, (percent) => {
      this.opacity = percent / 100;
      this.paint();
      return `${percent} %`;
    });
    this.buttons = colours.map((colour, index) => {
      const chip = make("span", { class: "chip", style: `background: rgb(${colour.join(",")})` });
      const choose = () => this.choose(index);
      return make("button", { type: "button", onfocus: choose, onpointerenter: choose, onclick: choose, onblur: () => this.choose(null), onpointerleave: () => this.choose(null) }, chip, String(index + 1));
    });
    const controls = [this.samples.row, this.layers.row, layers[0].length > 1 ? heads.row : null, blend.row, this.reading,
      make("div", { class: "row", role: "group", "aria-label": `${this.data.attended}s` }, ...this.buttons)];
    this.layers.set(last);
    heads.set(0);
    blend.set(60);
    return make("div", { class: "explorer" }, make("div", { class: "stage" }, this.image, this.canvas), make("div", {}, ...controls));
  }

  async show(change) {
    Object.assign(this, change);
    const sample = this.data.samples[this.sample];
    const url = sample.layers[this.layer][this.head];
    if (this.image.src !== sample.src) this.image.src = sample.src;
    this.wanted = url;
    const picture = await pixels(url);
    if (this.wanted !== url) return;
    this.owner = owners(picture, this.data.colours);
    this.canvas.width = picture.width;
    this.canvas.height = picture.height;
    this.paint();
    if (this.chosen !== null) this.choose(this.chosen);
  }

  /** Draw the map, or only what the chosen latent owns. */
  paint() {
    if (!this.owner) return;
    const context = this.canvas.getContext("2d");
    const overlay = context.createImageData(this.canvas.width, this.canvas.height);
    for (let place = 0; place < this.owner.length; place++) {
      const latent = this.owner[place];
      const own = this.chosen === null || latent === this.chosen;
      const [red, green, blue] = own ? this.data.colours[latent] : [0, 0, 0];
      overlay.data.set([red, green, blue, Math.round(255 * (own ? this.opacity : 0.75))], 4 * place);
    }
    context.putImageData(overlay, 0, 0);
    if (this.probe) {
      context.fillStyle = "white";
      context.fillRect(this.probe[0], this.probe[1], 1, 1);
    }
  }

  choose(latent) {
    this.chosen = latent;
    if (latent === null) this.probe = null;
    this.buttons.forEach((button, index) => button.setAttribute("aria-pressed", String(index === latent)));
    this.paint();
    const total = this.data.colours.length;
    if (latent === null || !this.owner) {
      this.reading.textContent = `Point at the picture to see which ${this.data.attended} owns a region.`;
      return;
    }
    const share = this.owner.reduce((sum, owner) => sum + (owner === latent), 0) / this.owner.length;
    this.reading.textContent = `${this.data.attended} ${latent + 1} of ${total} owns ${(100 * share).toFixed(1)} % of this picture`;
  }

  point(event) {
    if (!this.owner) return;
    const box = this.canvas.getBoundingClientRect();
    const clamp = (value, count) => Math.min(Math.max(Math.floor(value * count), 0), count - 1);
    const x = clamp((event.clientX - box.left) / box.width, this.canvas.width);
    const y = clamp((event.clientY - box.top) / box.height, this.canvas.height);
    this.probe = null;
    this.choose(this.owner[y * this.canvas.width + x]);
  }

  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === "Escape") this.choose(null);
    if (!(event.key in moves) || !this.owner) return;
    event.preventDefault();
    const { width, height } = this.canvas;
    const step = Math.max(Math.round(width / 32), 1);
    const [x, y] = this.probe || [width >> 1, height >> 1];
    const [right, down] = moves[event.key];
    this.probe = [Math.min(Math.max(x + right * step, 0), width - 1), Math.min(Math.max(y + down * step, 0), height - 1)];
    this.choose(this.owner[this.probe[1] * width + this.probe[0]]);
  }
}
