// One session as it is played or watched: what it is, how it goes, and what may be asked of it.

import { canDecodeH264 } from "/page/picture.js";

const POLL = 500;  // milliseconds between two questions how it goes, where no tick says so
const SETTLES = 1000;  // milliseconds in which what was tuned is to be seen in the figures
const RETRY = 5000;  // milliseconds until a session is asked for again where there was no room for one
const LATER = ["limit", "busy"];
const GONE = ["unknown_session", "ended"];

// `shown()` is called whenever anything of it may have changed, `say(text)` with what the player ought to know.
export class Play {
  constructor(bridge, picture, held, { shown, say, begun }) {
    Object.assign(this, { bridge, picture, held, shown, say, begun, stats: null, keyTimes: [], acts: new Map(), drawn: [], here: false, trouble: "", tuned: -SETTLES, tunes: 0 });
    const link = new URLSearchParams(location.hash.slice(1));
    this.watched = link.get("watch");
    this.given = link.get("play");  // a session to play in place of the one before
    this.before = sessionStorage.getItem("session");
    this.id = this.watched ?? this.given ?? this.before;
    this.own = this.watched === null;
    this.control = { in_control: false, holder: "", asking: "" };
    this.looking = false;  // another moment is on the canvas than the present one
    this.codec = "jpeg";
    setInterval(() => this.poll(), POLL);
  }

  get inControl() {
    return this.control.in_control;
  }

  // Enters the session of this page, a new one where there is none any more, once there is a line.
  async enter() {
    this.trouble = "opening a session";
    this.shown();
    try {
      const { worlds } = await this.bridge.ask("worlds");
      this.worlds = worlds;
      const shared = this.bridge.welcome.sessions[0];
      if (worlds.length === 0 && shared) [this.id, this.own] = [shared, false];
      if (this.id !== null && (await this.attach())) return;
      if (this.given !== null) {
        [this.id, this.given] = [this.before, null];
        if (this.id !== null && (await this.attach())) return;
      }
      if (!this.own) {
        this.trouble = "the session that this link leads to is over";
        return this.shown();
      }
      const again = this.scene ? { world: this.world.name, scene: this.scene.name, seed: this.seed } : {};
      await this.open(again);
      if (again.world) this.say("the server was started anew, and with it this scene");
    } catch (error) {
      if (error.code === "lost") return;
      this.trouble = error.message;
      this.shown();
      if (LATER.includes(error.code)) setTimeout(() => this.here || this.enter(), RETRY);
    }
  }

  async attach() {
    try {
      const opened = await this.bridge.ask("attach", { session: this.id });
      await this.arrive(opened);
    } catch (error) {
      if (GONE.includes(error.code)) return false;
      throw error;
    }
    // To give back what one has not changes nothing, and tells who has it.
    if (!this.inControl) this.control = await this.ask("control", { want: "release" });
    if (this.own && this.control.holder === "") this.control = await this.ask("control", { want: "take" });
    if (this.given !== null) this.keepGiven();
    this.held.tellAnew();
    this.shown();
    return true;
  }

  // The session that a link gave is this page's from now on, and the one before is not needed any more.
  keepGiven() {
    if (this.before !== null && this.before !== this.given) this.bridge.ask("close", { session: this.before }).catch(() => {});
    this.given = null;
    history.replaceState(null, "", location.pathname);
  }

  async open(wanted) {
    const opened = await this.bridge.ask("open", { ...wanted, clock: "live", seekable: true });
    const before = this.own && this.inControl ? this.id : null;
    this.own = true;
    await this.arrive(opened);
    if (before !== null && before !== this.id) this.bridge.ask("close", { session: before }).catch(() => {});
    this.control = { in_control: true, holder: "", asking: "" };
    this.held.tellAnew();
    this.shown();
  }

  async arrive(opened) {
    const another = this.world?.name !== opened.world.name || !this.keys;
    if (this.id !== opened.session) [this.stats, this.tuned] = [null, -SETTLES];
    this.id = opened.session;
    this.here = true;
    this.trouble = "";
    if (this.own) sessionStorage.setItem("session", this.id);
    this.world = opened.world;
    this.scene = opened.scene;
    this.seed = opened.seed;
    this.tick = opened.tick;
    this.control = { ...this.control, in_control: opened.in_control };
    this.held.period = 1 / this.world.ticks_per_second;
    if (another) {
      const answer = await fetch(`/keys/${encodeURIComponent(this.world.name)}`);
      this.keys = answer.ok ? await answer.json() : { buttons: {}, axes: {}, mouse: null, gamepad: {}, functions: {}, help: {}, prompts: {} };
      this.held.use(this.keys);
    }
    this.picture.drawRaw(opened.bytes, opened.shape);
    const wanted = new URLSearchParams(location.search).get("codec");
    const h264 = wanted !== "jpeg" && !this.failedH264 && (await canDecodeH264(this.world.width, this.world.height));
    await this.watch(h264 ? "h264" : "jpeg");
    this.begun(another);
    this.shown();
  }

  // Has frames come from now on, as a new stream.
  async watch(codec) {
    this.codec = codec;
    this.picture.begin();
    await this.ask("watch", { codec });
  }

  async h264Failed() {
    this.failedH264 = true;
    await this.watch("jpeg");
  }

  ask(type, fields = {}) {
    return this.bridge.ask(type, { session: this.id, ...fields });
  }

  // As `ask`; what is refused is said, and undefined the answer.
  async order(type, fields = {}) {
    try {
      return await this.ask(type, fields);
    } catch (error) {
      if (error.code === "not_in_control") this.say("somebody else plays this session; ask for the control");
      else if (error.code !== "lost") this.say(error.message);
      return undefined;
    }
  }

  // What is held, and when a key was pressed for it.
  act(action, hold, tap, time) {
    if (!this.inControl || !this.id || !this.bridge.up) return;
    const id = ++this.bridge.count;
    this.bridge.tell("act", { id, session: this.id, action, hold, tap });
    if (time !== undefined && tap) this.acts.set(id, time);
    if (this.acts.size > 100) this.acts.delete(this.acts.keys().next().value);
  }

  heard(message, bytes) {
    if (message.type === "tick") return this.take(message, bytes);
    if (message.session !== this.id) return;
    if (message.type === "applied") this.applied(message.id, message.tick);
    else if (message.type === "superseded") this.acts.delete(message.id);
    else if (message.type === "controlled") this.controlled(message);
    else if (message.type === "filming") this.say(`the film is dreamed again: tick ${message.done} of ${message.ticks}`);
    else if (message.type === "ended") this.say(`the session is over: ${message.reason}`);
  }

  take({ header, sizes }, bytes) {
    if (header.session !== this.id) return this.bridge.tell("seen", { number: header.number });
    let at = 0;
    const packets = sizes.map((size) => bytes.subarray(at, (at += size)));
    if (header.stats !== null) this.note(header.stats);
    this.seed = header.seed;
    this.picture.over = this.looking;
    this.picture.take(header, packets);
  }

  // The picture of a tick is on the canvas.
  painted(header) {
    this.bridge.tell("seen", { number: header.number });
    this.tick = header.tick;
    this.exact = false;
    this.drawn = [...this.drawn.slice(-30), { tick: header.tick, at: performance.now() }];
    if (header.begins && !this.own) this.ask("attach").then((found) => (this.scene = found.scene), () => {});
    for (const [id, act] of this.acts) if (act.tick !== undefined) this.timed(id, act);
    this.shown();
  }

  applied(id, tick) {
    const time = this.acts.get(id);
    if (time !== undefined) this.timed(id, { time: time.time ?? time, tick });
  }

  // From a key to the first frame that obeys it, once both are known.
  timed(id, act) {
    const first = this.drawn.find((drawn) => drawn.tick >= act.tick && drawn.at >= act.time);
    this.acts.set(id, act);
    if (first === undefined) return;
    this.acts.delete(id);
    const took = first.at - act.time;
    this.keyTimes = [...this.keyTimes.slice(-999), took];
    document.dispatchEvent(new CustomEvent("keyed", { detail: { id, tick: act.tick, took } }));
  }

  controlled(message) {
    const before = this.control;
    this.control = message;
    if (message.in_control && !before.in_control) {
      this.held.tellAnew();
      this.say("you play now");
    } else if (!message.in_control && before.in_control) {
      this.say(message.holder ? `${message.holder} plays now` : "nobody plays now");
    }
    if (message.in_control && message.asking && message.asking !== before.asking) {
      this.say(`${message.asking} asks for the control`);
    }
    this.shown();
  }

  async poll() {
    if (!this.id || !this.bridge.up) return;
    try {
      const tunes = this.tunes;
      const { stats } = await this.ask("stats");
      if (stats.tick === undefined) return;
      this.note(stats, tunes === this.tunes);
      // While the world stands still its frame is shown as it was dreamed, and not as it was encoded; it is one
      // that the stream did not bring, perhaps.
      const stands = (this.stats.paused || stats.waiting) && !this.looking;
      if (stands && (stats.tick !== this.tick || !this.exact)) await this.observe();
      this.shown();
    } catch (error) {
      if (GONE.includes(error.code) && this.own) {
        this.id = null;
        this.enter();
      }
    }
  }

  // Shows the newest frames as they are, not as they were encoded.
  async observe() {
    const found = await this.ask("observe");
    if (this.looking) return;
    this.tick = found.tick;
    this.seed = found.seed;
    this.exact = true;
    this.picture.drawRaw(found.bytes, found.shape);
  }

  // Has the session run otherwise; the figures say so at once, and later what the session made of it.
  tune({ single_step, auto_steps, ...fields }) {
    const stands = single_step ? { paused: true } : {};
    const auto = auto_steps === undefined ? {} : { auto: auto_steps };
    if (this.stats) this.stats = { ...this.stats, ...fields, ...stands, ...auto };
    this.tuned = performance.now();
    this.tunes += 1;
    this.shown();
    return this.order("tune", { single_step, auto_steps, ...fields });
  }

  // Takes in figures; what was tuned a moment ago they may not know yet, nor, unless they are `fresh`, what was
  // tuned since they were asked for.
  note(stats, fresh = true) {
    const { paused, speed, steps, auto } = this.stats ?? stats;
    const knows = fresh && performance.now() >= this.tuned + SETTLES;
    this.stats = knows ? stats : { ...stats, paused, speed, steps, auto };
  }

  lost() {
    this.here = false;
    this.held.releaseAll();
    this.shown();
  }

  async reset(fields) {
    const found = await this.order("reset", fields);
    if (found === undefined) return;
    if (fields.scene !== undefined) this.scene = this.world.scenes.find((s) => s.name === fields.scene) ?? this.scene;
    [this.seed, this.tick] = [found.seed, found.tick];
    this.picture.drawRaw(found.bytes, found.shape);
    this.begun(false);
    this.shown();
  }

  async handOver() {
    const want = this.inControl && this.control.asking ? "grant" : this.inControl ? "release" : "take";
    const found = await this.order("control", { want });
    if (found === undefined) return;
    this.controlled(found);
    if (want === "take" && !found.in_control) this.say(`${found.holder || "somebody"} was asked for the control`);
  }
}
