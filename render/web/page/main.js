// Puts the page together: events to what is held and to functions, what comes to the picture.

import { Bridge } from "/page/bridge.js";
import { Held, keyName } from "/page/held.js";
import { Moments } from "/page/moments.js";
import { Page } from "/page/page.js";
import { Picture } from "/page/picture.js";
import { Play } from "/page/play.js";

const LARGEST_NEW_SEED = 1_000_000;  // small enough to be remembered and typed

const page = new Page();
const held = new Held((action, hold, tap, time) => play?.act(action, hold, tap, time));
const picture = new Picture(page.canvas, {
  drawn: (header) => play.painted(header),
  failed: () => play.h264Failed(),
});
const bridge = new Bridge({
  heard: (message, bytes) => play.heard(message, bytes),
  opened: () => {
    page.lost = "";
    play.enter();
  },
  lost: (text) => {
    page.lost = text;
    play.lost();
  },
});
const play = new Play(bridge, picture, held, {
  shown: () => page.show(play, bridge),
  say: (text) => page.say(text),
  begun: (another) => {
    if (another) page.showTouch(play.keys, held, moments, SCRUBS);
    page.say(`${play.scene.title}  ·  ${play.keys.functions.help?.[0] ?? "F1"} shows the keys`);
  },
});
const moments = new Moments(play, page);

const stats = () => play.stats ?? { paused: false, speed: 1, steps: 1, auto: false, hold: false };
const nextScene = (by) => {
  const names = play.world.scenes.map((scene) => scene.name);
  const at = names.indexOf(play.scene.name);
  const scene = play.world.scenes[(at + by + names.length) % names.length];
  if (scene) play.reset({ scene: scene.name, seed: scene.seed });
};
const choose = (world, scene) => {
  const typed = page.seedField.value.trim();
  const seed = /^\d{1,20}$/.test(typed) ? typed : scene.seed;
  if (play.inControl && world.name === play.world.name) play.reset({ scene: scene.name, seed });
  else play.open({ world: world.name, scene: scene.name, seed }).catch((error) => page.say(error.message));
};
const screenshot = async () => {
  // The frame as it was dreamed: what is on the canvas has been through an encoder.
  const found = await play.order("observe");
  if (found === undefined) return;
  const [count, height, width] = found.shape;
  const { toImage } = await import("/page/picture.js");
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.getContext("2d").putImageData(toImage(found.bytes.subarray((count - 1) * height * width * 3), width, height), 0, 0);
  canvas.toBlob((blob) => {
    const link = Object.assign(document.createElement("a"), {
      href: URL.createObjectURL(blob), download: `playhead-${play.scene.name}-${found.tick}.png`,
    });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }, "image/png");
  page.say(`screenshot of tick ${found.tick}`);
};
const download = async (film) => {
  const found = await play.order("download", { film });
  if (found === undefined) return;
  Object.assign(document.createElement("a"), { href: `/download/${found.ticket}`, download: "" }).click();
  const differs = found.exact ? "" : "; not all of it is what was played, bit for bit";
  page.say(`the ${film ? "film" : "recording"}: ${found.ticks} ticks${differs}`);
};
// The prompts that the world has buttons for and the scene has: their buttons, and what they say.
const prompts = () =>
  Object.keys(play.keys.buttons).filter((name) => /^prompt_\d+$/.test(name)).slice(0, play.scene.prompts ?? 0)
    .map((name, n) => [name, play.keys.prompts[play.scene.name]?.[n] ?? name.replace("_", " ")]);
const tap = (name) => {
  held.press(`tap ${name}`, [name]);
  held.release(`tap ${name}`);
};
const listPrompts = () => {
  const found = prompts();
  if (!found.length) return page.say("this scene has no prompts to choose from");
  page.showList("Prompts", found.map(([name, text]) => [text, () => (tap(name), page.say(text))]));
};
const tellPrompt = (buttons) => {
  const [asked] = buttons.filter((name) => /^prompt_\d+$/.test(name));
  if (asked === undefined) return;
  const found = prompts().find(([name]) => name === asked);
  page.say(found?.[1] ?? "this scene has no prompt of that number");
};
let hold = false;
const functions = {
  pause: () => play.tune({ paused: !stats().paused }),
  single_step: () => play.tune({ single_step: true }),
  slower: () => play.tune({ speed: Math.max(0.25, stats().speed / 2) }),
  faster: () => play.tune({ speed: Math.min(2, stats().speed * 2) }),
  undo_second: () => moments.undoSecond(),
  bookmark: () => moments.bookmark(),
  branches: () => moments.list(),
  restart: () => play.reset({}),
  new_seed: () => play.reset({ seed: String(Math.floor(Math.random() * LARGEST_NEW_SEED)) }),
  next_scene: () => nextScene(1),
  previous_scene: () => nextScene(-1),
  more_steps: () => play.tune({ steps: stats().steps + 1 }),
  fewer_steps: () => play.tune({ steps: Math.max(1, stats().steps - 1) }),
  auto_steps: () => play.tune({ auto_steps: !stats().auto }),
  hold: () => play.tune({ hold: (hold = !hold) }),
  control: () => play.handOver(),
  hud: () => page.toggleHud(),
  help: () => page.showHelp(play.keys),
  fullscreen: () => (document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen()),
  screenshot,
};
const SCRUBS = { scrub_back: -1, scrub_forward: 1 };
const functionOf = (name) =>
  Object.entries(play.keys?.functions ?? {}).find(([, names]) => names.includes(name))?.[0];

page.showToolbar([
  ["Scenes", "Worlds, scenes and seeds", () => page.showScenes(play.worlds, play.keys, choose)],
  ["Restart", "Begin the scene again", functions.restart],
  ["Pause", "Stand still, or go on", functions.pause],
  ["Step", "Play a single tick", functions.single_step],
  ["Slower", "Slow motion", functions.slower],
  ["Faster", "Faster again", functions.faster],
  ["Fewer steps", "Fewer denoise steps a tick", functions.fewer_steps],
  ["More steps", "More denoise steps a tick", functions.more_steps],
  ["Moments", "Bookmarks and branches", functions.branches],
  ["Bookmark", "Give this moment a name", functions.bookmark],
  ["Prompts", "Go on under another prompt", listPrompts],
  ["Screenshot", "Save the frame as a PNG", functions.screenshot],
  ["Recording", "Download what was played, as a file that replays", () => download(false)],
  ["Film", "Download the way to this moment as an MP4", () => download(true)],
  ["Control", "Ask for the control, or hand it over", functions.control],
  ["Watch link", "Let somebody watch", () => page.showLink(`${location.origin}/#watch=${play.id}`)],
  ["Touch", "Buttons for fingers", () => page.toggleTouch()],
  ["Keys", "Show the keys", functions.help],
]);
page.toggleTouch(matchMedia("(pointer: coarse)").matches);

// Keys are the world's while the picture has the focus, and the page's everywhere else.
const ours = (event) => event.target === page.stage || event.target === document.body;
const down = new Map();  // by where a key is, what it was when it went down: shift may have changed since
addEventListener("keydown", (event) => {
  if (!ours(event) || event.altKey || event.metaKey || !play.keys) return;
  const name = keyName(event);
  if (event.ctrlKey && !held.holds("left ctrl") && !held.holds("right ctrl")) return;
  const called = functionOf(name);
  if (!called && !held.holds(name)) return;
  event.preventDefault();
  if (event.repeat) return;
  down.set(event.code, name);
  if (held.holds(name)) {
    held.pressKey(name, event.timeStamp);
    tellPrompt(held.buttons.get(name) ?? []);
  } else if (called in SCRUBS) moments.press(SCRUBS[called]);
  else if (!moments.active) functions[called]?.();
});
addEventListener("keyup", (event) => {
  const name = down.get(event.code);
  if (name === undefined) return;
  down.delete(event.code);
  held.release(`key ${name}`);
  const called = functionOf(name);
  if (called in SCRUBS) moments.release(SCRUBS[called]);
});
const letGo = () => {
  down.clear();
  held.releaseAll();
  Object.values(SCRUBS).forEach((direction) => moments.release(direction));
};
addEventListener("blur", letGo);
page.stage.addEventListener("blur", letGo);

// The mouse looks about once it is caught by a click; a finger by dragging.
page.stage.addEventListener("click", (event) => {
  page.stage.focus();
  if (held.mouse && event.pointerType === "mouse" && !document.pointerLockElement) page.stage.requestPointerLock();
});
page.stage.addEventListener("pointermove", (event) => {
  if (document.pointerLockElement === page.stage || (event.pointerType === "touch" && event.buttons)) {
    held.move(event.movementX, event.movementY);
  }
});
// Another link to this page is another session.
addEventListener("hashchange", () => location.reload());
page.stage.focus();
