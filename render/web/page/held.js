// What is held: by keys, touch, gamepads and the mouse, as the action that the server is told.

const NAMES = {
  ArrowUp: "up", ArrowDown: "down", ArrowLeft: "left", ArrowRight: "right", Space: "space", Enter: "return",
  NumpadEnter: "enter", Tab: "tab", Escape: "escape", Backspace: "backspace", Delete: "delete", Insert: "insert",
  Home: "home", End: "end", PageUp: "page up", PageDown: "page down", ShiftLeft: "left shift",
  ShiftRight: "right shift", ControlLeft: "left ctrl", ControlRight: "right ctrl", AltLeft: "left alt",
  AltRight: "right alt", CapsLock: "caps lock",
};
const SHIFTED = { "_": "-", "+": "=", "{": "[", "}": "]", "|": "\\", ">": ".", "<": ",", ":": ";", "?": "/", "\"": "'" };

// A key's name as the key maps have it: by what it types, or by where it is.
export const keyName = (event) => {
  if (event.code in NAMES) return NAMES[event.code];
  if (/^F\d+$/.test(event.key)) return event.key.toLowerCase();
  if (/^Numpad\d$/.test(event.code)) return `keypad ${event.code.at(-1)}`;
  if (/^Digit\d$/.test(event.code)) return event.code.at(-1);
  return event.key.length === 1 ? (SHIFTED[event.key] ?? event.key.toLowerCase()) : "";
};

const RENEW = 500;  // milliseconds after which the server is told again what is held still
const HOLD = 2;  // seconds for which it believes that
const MOTION = 1000 / 60;  // milliseconds between two looks at how far the mouse went
const DEAD = 0.5;  // how far a stick counts as held
const BUTTONS = ["a", "b", "x", "y", "left shoulder", "right shoulder", "left trigger", "right trigger", "back", "start",
  "left stick press", "right stick press", "dpad up", "dpad down", "dpad left", "dpad right"];
const STICKS = ["left stick left", "left stick right", "left stick up", "left stick down",
  "right stick left", "right stick right", "right stick up", "right stick down"];

// Calls `tell(action, tap, time)`, where `time` is when the key was pressed, if one was.
export class Held {
  constructor(tell) {
    Object.assign(this, { tell, down: new Map(), told: "", moved: { x: 0, y: 0 }, period: 0.05 });
    setInterval(() => this.renew(), RENEW / 2);
    setInterval(() => this.send(), MOTION);
    this.use({ buttons: {}, axes: {}, mouse: null, gamepad: {} });
    const look = () => {
      this.poll();
      requestAnimationFrame(look);
    };
    addEventListener("gamepadconnected", () => this.polling || ((this.polling = true), look()));
  }

  // Goes by another key map.
  use(keys) {
    this.releaseAll();
    this.buttons = new Map();
    this.pushes = new Map();
    this.pads = new Map();
    const add = (map, key, button) => map.set(key, [...(map.get(key) ?? []), button]);
    for (const [button, names] of Object.entries(keys.buttons)) for (const key of names) add(this.buttons, key, button);
    for (const [button, parts] of Object.entries(keys.gamepad)) for (const part of parts) add(this.pads, part, button);
    for (const [axis, ends] of Object.entries(keys.axes)) {
      for (const key of ends.negative) this.pushes.set(key, [axis, -1]);
      for (const key of ends.positive) this.pushes.set(key, [axis, 1]);
    }
    this.mouse = keys.mouse;
  }

  holds(name) {
    return this.buttons.has(name) || this.pushes.has(name);
  }

  // `part`: a key, a finger or a part of a gamepad; what goes down twice goes down once.
  press(part, buttons, push, time = performance.now()) {
    if (this.down.has(part)) return;
    this.down.set(part, { buttons, push });
    this.send(time);
  }

  pressKey(name, time) {
    this.press(`key ${name}`, this.buttons.get(name) ?? [], this.pushes.get(name), time);
  }

  release(part) {
    if (this.down.delete(part)) this.send(performance.now());
  }

  releaseAll() {
    if (this.down.size) {
      this.down.clear();
      this.send(performance.now());
    }
  }

  // The mouse went so many pixels right and down.
  move(right, down) {
    if (this.mouse === null) return;
    this.moved.x += this.mouse.invert_x ? -right : right;
    this.moved.y += this.mouse.invert_y ? down : -down;
  }

  action() {
    const buttons = new Set();
    const axes = {};
    const add = (axis, value) => (axes[axis] = Math.max(-1, Math.min(1, (axes[axis] ?? 0) + value)));
    for (const { buttons: held, push } of this.down.values()) {
      held.forEach((button) => buttons.add(button));
      if (push) add(...push);
    }
    if (this.mouse !== null) {
      // Motion is a part of a tick: what several of these say of one tick is added up.
      const full = this.mouse.pixels_per_second * this.period;
      if (this.mouse.x && this.moved.x) add(this.mouse.x, this.moved.x / full);
      if (this.mouse.y && this.moved.y) add(this.mouse.y, this.moved.y / full);
      this.moved = { x: 0, y: 0 };
    }
    return { buttons: [...buttons].sort(), axes };
  }

  send(time) {
    const moves = this.moved.x !== 0 || this.moved.y !== 0;
    const action = this.action();
    const said = JSON.stringify(action);
    if (said === this.told && !moves) return;
    this.told = said;
    this.at = performance.now();
    this.last = action;
    this.tell(action, HOLD, true, time);
  }

  renew() {
    if (this.last && (this.last.buttons.length || Object.keys(this.last.axes).length) && performance.now() > this.at + RENEW) {
      this.at = performance.now();
      this.tell(this.last, HOLD, false);
    }
  }

  // Tells a server that knows of nothing held yet.
  tellAnew() {
    this.told = "";
    this.send();
  }

  poll() {
    const held = new Set();
    for (const pad of navigator.getGamepads()) {
      if (pad === null || pad.mapping !== "standard") continue;
      pad.buttons.forEach((button, n) => button.pressed && BUTTONS[n] && held.add(BUTTONS[n]));
      pad.axes.slice(0, 4).forEach((value, n) => {
        if (value < -DEAD) held.add(STICKS[2 * n]);
        if (value > DEAD) held.add(STICKS[2 * n + 1]);
      });
    }
    for (const [part, buttons] of this.pads) {
      if (held.has(part)) this.press(`pad ${part}`, buttons);
      else this.release(`pad ${part}`);
    }
  }
}
