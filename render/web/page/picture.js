// The picture: decodes what comes and draws it; what is newer wins.

export const canDecodeH264 = async (width, height) => {
  // Browsers have it on https and on this machine only; elsewhere frames come as JPEG.
  if (typeof VideoDecoder === "undefined") return false;
  try {
    const { supported } = await VideoDecoder.isConfigSupported({ codec: "avc1.640028", codedWidth: width, codedHeight: height });
    return supported;
  } catch {
    return false;
  }
};

// Calls `drawn(header)` when the first frame of a tick is on the canvas, and `failed()` where H.264 cannot be
// decoded any further.
export class Picture {
  constructor(canvas, { drawn, failed }) {
    Object.assign(this, { canvas, drawn, failed, decodeTimes: [], over: false });
    this.context = canvas.getContext("2d", { alpha: false });
    this.newest = 0;
    this.generation = 0;
    this.waiting = new Map();
  }

  // Begins with another stream.
  begin() {
    this.generation += 1;
    this.newest = 0;
    this.waiting.clear();
    if (this.decoder && this.decoder.state !== "closed") this.decoder.close();
    this.decoder = undefined;
  }

  take(header, packets) {
    const began = performance.now();
    if (header.codec === "jpeg") this.takeJpegs(header, packets, began, this.generation);
    else this.takeH264(header, packets, began);
  }

  async takeJpegs(header, packets, began, generation) {
    const pictures = await Promise.all(packets.map((p) => createImageBitmap(new Blob([p], { type: "image/jpeg" }))));
    this.show(header, pictures, began, generation);
  }

  takeH264(header, packets, began) {
    const generation = this.generation;
    if (this.decoder === undefined) {
      if (!header.key) return;
      this.decoder = new VideoDecoder({
        output: (frame) => this.decoded(frame),
        error: () => generation === this.generation && this.failed(),
      });
      this.decoder.configure({ codec: codecOf(packets[0]), optimizeForLatency: true });
    }
    if (header.key && this.waiting.size > 32) this.waiting.clear();
    packets.forEach((data, n) => {
      const timestamp = header.number * 1024 + n;
      this.waiting.set(timestamp, { header, n, began, generation, of: packets.length });
      const type = header.key && n === 0 ? "key" : "delta";
      this.decoder.decode(new EncodedVideoChunk({ type, timestamp, data }));
    });
  }

  decoded(frame) {
    const about = this.waiting.get(frame.timestamp);
    this.waiting.delete(frame.timestamp);
    if (about === undefined) return frame.close();
    if (about.of === 1) return this.show(about.header, [frame], about.began, about.generation);
    this.tick = about.n === 0 ? [frame] : [...(this.tick ?? []), frame];
    if (this.tick.length === about.of) this.show(about.header, this.tick, about.began, about.generation);
  }

  // Draws the first frame of a tick now, and the others as the world's time goes on.
  show(header, frames, began, generation) {
    if (generation !== this.generation || header.number < this.newest) return frames.forEach((f) => f.close());
    this.newest = header.number;
    this.decodeTimes = [...this.decodeTimes.slice(-59), performance.now() - began];
    frames.forEach((frame, n) => {
      const draw = () => {
        if (!this.over && (n === 0 || header.number === this.newest)) this.draw(frame, header.width, header.height);
        frame.close();
      };
      if (n === 0) draw();
      else setTimeout(draw, (1000 * header.period * n) / frames.length);
    });
    this.drawn(header);
  }

  draw(frame, width, height) {
    this.resize(width, height);
    this.context.drawImage(frame, 0, 0, width, height);
  }

  // Draws the last of raw frames, `[n, H, W, 3]` bytes. What is left to draw of the tick before is not drawn.
  drawRaw(bytes, [count, height, width]) {
    this.newest = Math.floor(this.newest) + 0.5;
    this.resize(width, height);
    this.context.putImageData(toImage(bytes.subarray((count - 1) * height * width * 3), width, height), 0, 0);
  }

  resize(width, height) {
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
  }
}

export const toImage = (bytes, width, height) => {
  const image = new ImageData(width, height);
  for (let i = 0, j = 0; j < width * height * 4; i += 3, j += 4) {
    image.data[j] = bytes[i];
    image.data[j + 1] = bytes[i + 1];
    image.data[j + 2] = bytes[i + 2];
    image.data[j + 3] = 255;
  }
  return image;
};

// The codec's name as WebCodecs wants it, from the sequence parameter set that a key packet begins with.
const codecOf = (packet) => {
  for (let i = 0; i + 6 < packet.length; i++) {
    if (packet[i] === 0 && packet[i + 1] === 0 && packet[i + 2] === 1 && (packet[i + 3] & 31) === 7) {
      return `avc1.${[...packet.subarray(i + 4, i + 7)].map((b) => b.toString(16).padStart(2, "0")).join("")}`;
    }
  }
  return "avc1.640028";
};
