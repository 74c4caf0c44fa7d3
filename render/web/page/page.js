// What is on the page beside the picture: figures, notes, lists and dialogs.

const NOTE = 4000;  // milliseconds for which a note stays
const $ = (id) => document.getElementById(id);
const make = (tag, fields = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), fields);
  made.append(...children);
  return made;
};
export const percentile = (values, percent) => {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length ? sorted[Math.max(0, Math.ceil((sorted.length * percent) / 100) - 1)] : null;
};
const ms = (value, digits = 1) => (value === null || value === undefined ? "-" : value.toFixed(digits));
const inMs = (seconds) => (seconds === null || seconds === undefined ? "-" : (1000 * seconds).toFixed(1));

export class Page {
  constructor() {
    Object.assign(this, {
      stage: $("stage"), canvas: $("picture"), strip: $("strip"), words: $("strip-words"), pictures: $("strip-pictures"),
      lines: $("strip-lines"), bookmarkName: $("bookmark-name"), seedField: $("seed"), hud: true, lost: "",
    });
    for (const dialog of document.querySelectorAll("dialog")) dialog.addEventListener("close", () => this.stage.focus());
  }

  say(text) {
    $("note").textContent = text;
    clearTimeout(this.noted);
    this.noted = setTimeout(() => ($("note").textContent = ""), NOTE);
  }

  toggleHud() {
    this.hud = !this.hud;
    $("hud").hidden = !this.hud;
  }

  // Shows how the session goes; `figures` beside those of the server's.
  show(play, bridge) {
    const { stats, control } = play;
    document.body.dataset.tick = play.tick ?? "";
    document.body.dataset.session = play.here ? play.id : "";
    document.body.dataset.control = control.in_control ? "mine" : control.holder || "nobody";
    this.showState(play);
    if (!stats || !play.world) return;
    $("title").textContent = play.scene.title;
    document.title = `${play.scene.title} · Playhead`;
    if (this.hud) this.showFigures(stats, play, bridge);
    $("held").replaceChildren(...stats.held.map((name) => make("span", { textContent: name.replaceAll("_", " ") })));
  }

  // At the top right: what is not as usual.
  showState({ stats, control, trouble, world }) {
    const said = [];
    if (this.lost) said.push([this.lost, "warning"]);
    if (trouble && !this.lost) said.push([trouble, "warning"]);
    if (stats && world && !control.in_control) said.push([`${control.holder || "nobody"} plays`, ""]);
    if (control.in_control && control.asking) said.push([`${control.asking} asks for the control`, "warning"]);
    if (stats?.paused) said.push(["paused", ""]);
    else if (stats?.waiting) said.push(["waiting for a key", ""]);
    if (stats && stats.speed !== 1) said.push([`${stats.speed}x speed`, ""]);
    if (stats?.slow && !stats.paused) said.push([`running slow: ${stats.rate.toFixed(1)} of ${stats.wanted_rate.toFixed(1)} ticks/s`, "warning"]);
    const text = JSON.stringify(said);
    if (text !== this.said) {
      this.said = text;
      $("state").replaceChildren(...said.map(([words, kind]) => make("span", { textContent: words, className: kind })));
    }
  }

  showFigures(stats, play, bridge) {
    const trips = bridge.roundTrips;
    const rows = [
      ["tick", `${inMs(stats.tick_p50)} ms p50, ${inMs(stats.tick_p99)} ms p99`],
      ["budget", `${inMs(stats.budget)} ms, missed ${stats.missed} of ${stats.counted}`],
      ["rate", `${ms(stats.rate)} of ${stats.wanted_rate.toFixed(1)} ticks/s`],
      ["steps", `${stats.steps}${stats.auto ? " (auto)" : ""}`],
      ["round trip", `${ms(percentile(trips, 50))} ms p50, ${ms(percentile(trips, 99))} ms p99`],
      ["decode", `${ms(percentile(play.picture.decodeTimes, 50))} ms ${play.codec}`],
      ["key to frame", `${ms(percentile(play.keyTimes, 50), 0)} ms p50, ${ms(percentile(play.keyTimes, 99), 0)} ms p99`],
      ["seed", `${play.seed}`],
      ["tick number", `${play.tick}`],
    ];
    const list = $("hud");
    if (list.children.length !== 2 * rows.length) {
      list.replaceChildren(...rows.flatMap(([name]) => [make("dt", { textContent: name }), make("dd")]));
    }
    rows.forEach(([, value], n) => {
      const cell = list.children[2 * n + 1];
      if (cell.textContent !== value) cell.textContent = value;
    });
  }

  showHelp(keys) {
    const rows = [];
    const row = (names, what) => {
      if (!names.length) return;
      rows.push(make("tr", {}, make("td", {}, ...names.flatMap((name) => [make("kbd", { textContent: name }), " "])), make("td", { textContent: what })));
    };
    for (const [button, names] of Object.entries(keys.buttons)) row(names, button.replaceAll("_", " "));
    for (const [axis, ends] of Object.entries(keys.axes)) row([...ends.negative, ...ends.positive], axis);
    if (keys.mouse) row(["click"], "look about with the mouse; escape lets it go");
    for (const [name, names] of Object.entries(keys.functions)) row(names, keys.help[name]);
    $("help-keys").replaceChildren(make("tbody", {}, ...rows));
    this.open("help");
  }

  // `choose(world, scene)` is called with what is picked.
  showScenes(worlds, keys, choose) {
    $("scene-list").replaceChildren(
      ...worlds.flatMap((world) => [
        make("h3", { textContent: world.title }),
        make("div", { className: "row" }, ...world.scenes.map((scene) => {
          const url = `/picture/${encodeURIComponent(world.name)}/${encodeURIComponent(scene.name)}`;
          const button = make("button", { type: "button", title: (keys.prompts[scene.name] ?? []).join("\n") },
            make("img", { src: url, alt: "", loading: "lazy" }), scene.title);
          button.dataset.scene = scene.name;
          button.onclick = () => {
            $("scenes").close();
            choose(world, scene);
          };
          return button;
        })),
      ]),
    );
    this.open("scenes");
    $("scene-list").querySelector("button")?.focus();
  }

  // A list to choose from: `entries` are texts, and what each does.
  showList(title, entries) {
    $("moments-title").textContent = title;
    $("moment-list").replaceChildren(...entries.map(([text, go]) => {
      const button = make("button", { type: "button", textContent: text });
      button.onclick = () => {
        $("moments").close();
        go();
      };
      return make("li", {}, button);
    }));
    this.open("moments");
  }

  // Opens a dialog that asks for something. Resolves to what `read()` finds, undefined where it was left.
  askFor(id, read) {
    const dialog = $(id);
    dialog.returnValue = "";
    this.open(id);
    return new Promise((done) => {
      dialog.addEventListener("close", () => done(dialog.returnValue === "keep" ? read() : undefined), { once: true });
    });
  }

  showLink(link) {
    $("watch-link").value = link;
    this.open("watching");
    $("watch-link").select();
  }

  open(id) {
    if (!$(id).open) $(id).showModal();
  }

  // Buttons above the picture: `entries` are names, what each does, and a shorter word for it.
  showToolbar(entries) {
    $("toolbar").replaceChildren(...entries.map(([word, title, work]) => {
      const button = make("button", { type: "button", textContent: word, title });
      button.addEventListener("click", (event) => {
        work();
        if (event.detail > 0) this.stage.focus();  // of a mouse: the keys are the world's again
      });
      return button;
    }));
  }

  // Buttons under the picture for fingers, which hold as keys do; `scrubs` are names, and what going back or
  // forward is called with.
  showTouch(keys, held, moments, scrubs) {
    const hold = (name, press, release) => {
      const button = make("button", { type: "button", textContent: name.replaceAll("_", " "), tabIndex: -1 });
      button.dataset.hold = name;
      button.onpointerdown = (event) => {
        event.preventDefault();
        button.setPointerCapture(event.pointerId);
        button.classList.add("down");
        press(event.timeStamp);
      };
      button.onpointerup = button.onpointercancel = button.onlostpointercapture = () => {
        button.classList.remove("down");
        release();
      };
      return button;
    };
    const cluster = (names) => make("div", {}, ...names.map((name) =>
      hold(name, (time) => held.press(`touch ${name}`, [name], undefined, time), () => held.release(`touch ${name}`))));
    const names = Object.keys(keys.buttons);
    const walks = (name) => /forward|back|left|right/.test(name);
    const ways = Object.entries(scrubs).map(([name, way]) => hold(name, () => moments.press(way), () => moments.release(way)));
    $("touch").replaceChildren(
      cluster(names.filter(walks)), cluster(names.filter((name) => !walks(name))), make("div", {}, ...ways),
    );
  }

  toggleTouch(shown = $("touch").hidden) {
    $("touch").hidden = !shown;
  }
}
