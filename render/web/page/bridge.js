// The line to the server: requests and their replies, what comes unasked, and coming back after a break.

const BACK_OFF = [250, 500, 1000, 2000];  // milliseconds between two tries to come back

// Seeds go up to 2^64 - 1, which JSON's numbers are and JavaScript's are not: here they are texts. Inside a
// text of JSON a quote has a backslash before it, so these patterns meet nothing but fields of that name.
const read = (text) => JSON.parse(text.replace(/"seed":(\d+)/g, '"seed":"$1"'));
const write = (message) => JSON.stringify(message).replace(/"seed":"(\d+)"/, '"seed":$1');

export class Refusal extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

// Calls `heard(message, bytes)` with what comes unasked, `opened()` whenever there is a new line, after the
// welcome, and `lost()` when there is none any more.
export class Bridge {
  constructor({ heard, opened, lost }) {
    Object.assign(this, { heard, opened, lost, token: sessionStorage.getItem("token") ?? "" });
    this.asked = new Map();
    this.count = 0;
    this.tries = 0;
    this.roundTrips = [];
    this.dial();
    setInterval(() => this.measure(), 500);
    // A page that is left may be kept for the way back to it, and its line with it: nobody else could play then.
    addEventListener("pagehide", () => this.leave());
    addEventListener("pageshow", (event) => event.persisted && this.comeBack());
  }

  get up() {
    return this.socket.readyState === WebSocket.OPEN;
  }

  dial() {
    const url = new URL("/play", location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = (this.socket = new WebSocket(url));
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.greet();
    socket.onmessage = ({ data }) => this.hear(data);
    socket.onclose = () => socket === this.socket && this.redial();
  }

  async greet() {
    const name = `browser ${navigator.platform || ""}`.trim().slice(0, 40);
    try {
      this.welcome = await this.ask("hello", { protocol: [1], client: name, resume: this.token });
    } catch (error) {
      if (error.code !== "lost") this.lost(error.message);
      this.socket.close();
      return;
    }
    this.token = this.welcome.token;
    sessionStorage.setItem("token", this.token);
    this.tries = 0;
    this.opened();
  }

  // Another tab came as this one, a copy of it perhaps: two would take the session from each other for ever.
  replace() {
    this.replaced = true;
    this.socket.close();
  }

  leave() {
    this.left = true;
    this.socket.close();
  }

  comeBack() {
    this.left = false;
    if (this.replaced || this.up) return;
    this.giveUp();
    this.dial();
  }

  // Nothing of what was asked will be answered.
  giveUp() {
    for (const { fail } of this.asked.values()) fail(new Refusal("lost", "the line to the server is lost"));
    this.asked.clear();
  }

  redial() {
    this.giveUp();
    if (this.replaced) return this.lost("this session is in another tab now; reload to have it here");
    if (this.left) return;
    this.lost("no connection; trying to come back");
    setTimeout(() => this.dial(), BACK_OFF[Math.min(this.tries++, BACK_OFF.length - 1)]);
  }

  // Sends a request. Resolves to its reply, with the frames' bytes as `bytes` where there are some.
  ask(type, fields = {}) {
    const id = ++this.count;
    return new Promise((done, fail) => {
      if (!this.up) return fail(new Refusal("lost", "there is no line to the server"));
      this.asked.set(id, { done, fail });
      this.socket.send(write({ type, id, ...fields }));
    });
  }

  // Sends what is answered to nobody.
  tell(type, fields) {
    if (this.up) this.socket.send(write({ type, ...fields }));
  }

  hear(data) {
    let message, bytes;
    if (typeof data === "string") {
      message = read(data);
    } else {
      const length = new DataView(data).getUint32(0, true);
      message = read(new TextDecoder().decode(new Uint8Array(data, 4, length)));
      bytes = new Uint8Array(data, 4 + length);
    }
    const PUSHED = ["tick", "applied", "superseded", "ended", "filming"];
    const waiting = PUSHED.includes(message.type) ? undefined : this.asked.get(message.id);
    if (waiting === undefined) return this.heard(message, bytes);
    this.asked.delete(message.id);
    if (message.code === "hello_first") this.replace();
    if (message.type === "error") return waiting.fail(new Refusal(message.code, message.message));
    waiting.done(bytes === undefined ? message : { ...message, bytes });
  }

  async measure() {
    if (!this.up || !this.welcome) return;
    const began = performance.now();
    try {
      await this.ask("ping");
      this.roundTrips = [...this.roundTrips.slice(-59), performance.now() - began];
    } catch {
      // it is lost, which is told elsewhere
    }
  }
}
