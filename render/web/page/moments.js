// What was played: back through it while a key is held, bookmarks, branches, and the strip of pictures.

import { toImage } from "/page/picture.js";

const HESITATION = 0.3;  // seconds for which a key that is held counts as a tap, of a single tick
const FASTEST = 256;  // times the world's pace that it goes in the end
const DOUBLES = 0.7;  // seconds in which it comes to go twice as fast
const HIGH = 40;  // pixels of the strip's pictures
const KEPT = 400;

// How many ticks a key goes that is held for so many seconds, in a world of `rate` ticks a second.
export const distance = (held, rate) => {
  let [run, ticks, speed] = [held - HESITATION, 1, 1];
  while (run > 0) {
    ticks += Math.min(run, DOUBLES) * rate * speed;
    run -= DOUBLES;
    speed = Math.min(2 * speed, FASTEST);
  }
  return Math.floor(ticks);
};

// The last tick of each branch that is on the way to a moment.
const wayTo = (branches, point) => {
  const known = new Map(branches.map((branch) => [branch.id, branch]));
  const way = new Map();
  let [number, last] = [point.branch, point.tick];
  while (known.has(number)) {
    way.set(number, last);
    const { parent, first } = known.get(number);
    if (parent === null) break;
    [number, last] = [parent, first];
  }
  return way;
};

export class Moments {
  constructor(play, page) {
    Object.assign(this, { play, page, pictures: new Map(), direction: 0 });
  }

  // Begins to go back (-1) or forward (1); `release` ends it.
  async press(direction) {
    if (this.direction === direction) return;
    if (this.active) {
      this.turn();
      this.direction = direction;
      return;
    }
    if (!this.play.inControl) return this.play.say("somebody else plays this session");
    Object.assign(this, { active: true, direction, offset: 0, since: performance.now(), origin: null });
    const paused = this.play.stats?.paused ?? false;
    this.play.looking = true;
    await this.play.tune({ paused: true });
    const found = await this.play.order("timeline");
    if (found === undefined) return this.finish(paused);
    this.timeline = found;
    this.origin = { branch: found.branch, tick: found.tick };
    await this.run();
    const point = this.point();
    if (point.tick !== this.origin.tick) await this.go(point);
    this.finish(paused);
  }

  release(direction) {
    if (this.direction === direction) {
      this.turn();
      this.direction = 0;
    }
  }

  turn() {
    this.offset += this.moved();
    this.since = performance.now();
  }

  moved() {
    return this.direction * distance((performance.now() - this.since) / 1000, this.play.world.ticks_per_second);
  }

  point() {
    const end = this.timeline.branches.find((b) => b.id === this.origin.branch)?.last ?? this.origin.tick;
    const tick = Math.max(0, Math.min(end, this.origin.tick + this.offset + (this.direction ? this.moved() : 0)));
    return { branch: this.origin.branch, tick };
  }

  // Shows the moments that pass by until no key is down.
  async run() {
    let shown = -1;
    this.show(this.point());
    while (this.direction !== 0) {
      const point = this.point();
      if (point.tick !== shown) {
        shown = point.tick;
        this.show(point);
        await this.look(point);
      } else {
        await new Promise((done) => setTimeout(done, 15));
      }
    }
  }

  async look(point) {
    try {
      const found = await this.play.ask("picture", point);
      this.play.picture.drawRaw(found.bytes, found.shape);
    } catch (error) {
      if (error.code !== "busy") this.play.say(error.message);
    }
  }

  async go(point) {
    const found = await this.play.order("seek", point);
    if (found === undefined) return;
    this.play.picture.drawRaw(found.bytes, found.shape);
    [this.play.tick, this.play.seed] = [found.tick, found.seed];
    this.play.say(`tick ${found.tick} of branch ${point.branch}`);
  }

  finish(paused) {
    Object.assign(this, { active: false, direction: 0, origin: null });
    this.play.looking = false;
    this.page.strip.hidden = true;
    if (!paused) this.play.tune({ paused: false });
  }

  async undoSecond() {
    const found = await this.play.order("timeline");
    if (found === undefined) return;
    const tick = Math.max(0, found.tick - Math.max(1, Math.round(this.play.world.ticks_per_second)));
    await this.go({ branch: found.branch, tick });
  }

  async bookmark() {
    const paused = this.play.stats?.paused ?? false;
    await this.play.tune({ paused: true });
    this.page.bookmarkName.value = "";
    const name = await this.page.askFor("naming", () => this.page.bookmarkName.value);
    if (name !== undefined) {
      const kept = await this.play.order("bookmark", { name });
      if (kept) this.play.say(`bookmark: ${kept.name}`);
    }
    if (!paused) this.play.tune({ paused: false });
  }

  // The list of moments to go to.
  async list() {
    const found = await this.play.order("timeline");
    if (found === undefined) return;
    const rate = this.play.world.ticks_per_second;
    const entries = [
      ...found.bookmarks.map((mark) => [`⚑ ${mark.name}: tick ${mark.tick} of branch ${mark.branch}`, mark]),
      ...found.branches.map((b) => [
        `branch ${b.id}: ${b.parent === null ? "from a scene's start" : `from tick ${b.first} of branch ${b.parent}`}, ` +
          `to tick ${b.last} (${(b.last / rate).toFixed(1)} s)${b.id === found.branch ? ", here" : ""}`,
        { branch: b.id, tick: b.last },
      ]),
    ];
    this.page.showList("Bookmarks and branches", entries.map(([text, { branch, tick }]) => [text, () => this.go({ branch, tick })]));
  }

  // Draws the strip: pictures of the way to a moment, and under them every branch.
  show(point) {
    const { strip, words, pictures, lines } = this.page;
    strip.hidden = false;
    const { branches, bookmarks, thumbnails } = this.timeline;
    const end = branches.find((b) => b.id === point.branch)?.last ?? point.tick;
    const ago = point.tick < end ? `, ${((end - point.tick) / this.play.world.ticks_per_second).toFixed(1)} s before its end` : "";
    words.textContent = `branch ${point.branch}, tick ${point.tick} of ${end}${ago}`;
    const last = Math.max(1, ...branches.map((b) => b.last));
    const way = wayTo(branches, point);
    this.drawPictures(pictures, thumbnails, way, point, last);
    this.drawLines(lines, branches, bookmarks, way, point, last);
  }

  drawPictures(row, thumbnails, way, point, last) {
    let free = 0;
    const there = new Set();
    for (const [branch, tick] of [...thumbnails].sort((a, b) => a[1] - b[1])) {
      const reach = branch === point.branch ? last : (way.get(branch) ?? -1);
      const left = (row.clientWidth * tick) / last;
      if (tick > reach || left < free || left > row.clientWidth - HIGH) continue;
      const small = this.small(branch, tick);
      free = left + (small.width * HIGH) / small.height + 2;
      small.style.left = `${left}px`;
      there.add(small);
    }
    for (const child of [...row.children]) if (!there.has(child)) child.remove();
    for (const small of there) if (small.parentNode !== row) row.append(small);
  }

  // A small canvas of a moment, drawn as soon as its picture is here.
  small(branch, tick) {
    const key = `${this.play.id} ${branch} ${tick}`;
    if (this.pictures.size > KEPT) this.pictures.clear();
    if (!this.pictures.has(key)) {
      const { width, height } = this.play.world;
      const canvas = Object.assign(document.createElement("canvas"), { width: Math.round((HIGH * width) / height), height: HIGH });
      this.pictures.set(key, canvas);
      this.play.ask("picture", { branch, tick, small: true }).then((found) => {
        const [, high, wide] = found.shape;
        Object.assign(canvas, { width: wide, height: high });
        canvas.getContext("2d").putImageData(toImage(found.bytes, wide, high), 0, 0);
      }, () => this.pictures.delete(key));
    }
    return this.pictures.get(key);
  }

  drawLines(canvas, branches, bookmarks, way, point, last) {
    Object.assign(canvas, { width: canvas.clientWidth, height: canvas.clientHeight });
    const context = canvas.getContext("2d");
    const x = (tick) => Math.round(((canvas.width - 2) * tick) / last) + 1;
    const lanes = new Map(branches.map((branch, n) => [branch.id, 8 + (n % 6) * 6]));
    const ordered = [...branches].sort((a, b) => way.has(a.id) - way.has(b.id));
    for (const { id, first, last: ends } of ordered) {
      context.fillStyle = way.has(id) ? "#a9b0bd" : "#484e5a";
      context.fillRect(x(first), lanes.get(id), Math.max(2, x(ends) - x(first)), 3);
      if (!way.has(id)) continue;
      context.fillStyle = "#6cb6ff";
      context.fillRect(x(first), lanes.get(id), Math.max(2, x(way.get(id)) - x(first)), 3);
    }
    context.fillStyle = "#ffb454";
    for (const { branch, tick } of bookmarks) context.fillRect(x(tick), (lanes.get(branch) ?? 8) - 6, 2, 9);
    context.fillStyle = "#ffffff";
    context.fillRect(x(point.tick), 0, 2, canvas.height);
  }
}
