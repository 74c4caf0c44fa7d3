"""Public worlds on the page: the mouse looks about once it is caught, prompts are chosen in words."""

import numpy as np
import pytest
from selenium.webdriver import ActionChains

from playhead.scenes.build import save_scene
from playhead.scenes.scene import SceneFields, load_scene
from playhead.world.home import scenes_folder
from playhead.world.randomise import random_context, random_world, save_world_config
from playhead.world.world import World
from tests.render.web.conftest import serving_pages

pytestmark = pytest.mark.usefixtures("browser")


@pytest.fixture
def public_door(tmp_path, monkeypatch):
    """Serves a small public world of random weights, and a scene of it."""
    monkeypatch.setenv("PLAYHEAD_HOME", str(tmp_path / "home"))

    def make(name: str, *prompts: str):
        config = random_world(name, small=True)
        save_world_config(config)
        fields = SceneFields("start", "Start", "", config.name, 0, "context.npz", prompts=prompts)
        save_scene(fields, random_context(config), scenes_folder())
        world = World.load(config.name, "cpu")
        return serving_pages(world, load_scene("start"), recordings=tmp_path / "recordings")

    return make


def test_the_mouse_looks_about_once_a_click_has_caught_it(public_door, open_tab):
    with public_door("matrix-game-2") as (server, door):
        tab = open_tab(door.link).begin()
        timeline = server.sessions.find(tab.data["session"]).loop.timeline
        stage = tab.driver.find_element("id", "stage")
        ActionChains(tab.driver).move_to_element(stage).click().perform()
        tab.wait(lambda: tab.run("return document.pointerLockElement?.id === 'stage'"), "the catch")

        def looked(axis: str, by: tuple[int, int]) -> float:
            count = len(timeline.tree.path(1))
            for _ in range(8):
                ActionChains(tab.driver, duration=20).move_by_offset(*by).perform()
            tab.wait(lambda: len(timeline.tree.path(1)) > count + 3, "some ticks")
            return sum(t.action.axes.get(axis, 0.0) for t in timeline.tree.path(1)[count:])

        assert looked("yaw", (9, 0)) > 0 > looked("yaw", (-9, 0))
        assert looked("pitch", (0, -9)) > 0 > looked("pitch", (0, 9))
        assert tab.errors() == []


def test_a_tick_of_several_frames_ends_with_its_last(public_door, open_tab):
    with public_door("matrix-game-2") as (server, door):
        tab = open_tab(f"{door.link}?codec=jpeg").begin()
        hosted = server.sessions.find(tab.data["session"])
        assert hosted.world.config.frames_per_tick > 1
        tab.pause(hosted.loop)
        frames = hosted.loop.ask(lambda session: session.frames).result()
        tab.wait(lambda: np.array_equal(tab.pixels(), frames[-1]), "the last frame")


def test_a_prompt_is_chosen_by_its_words_and_by_its_key(public_door, open_tab):
    with public_door("longlive", "a red door", "a blue door") as (server, door):
        tab = open_tab(door.link).begin()
        timeline = server.sessions.find(tab.data["session"]).loop.timeline
        tab.click("Prompts")
        tab.wait(lambda: tab.run("return document.getElementById('moments').open"), "the list")
        assert tab.run("return document.getElementById('moment-list').innerText").split("\n") == [
            "a red door",
            "a blue door",
        ]
        tab.run("document.querySelectorAll('#moment-list button')[1].click()")
        held = lambda: [t.action.in_words() for t in timeline.tree.path(1)]  # noqa: E731
        tab.wait(lambda: ("prompt_2",) in held(), "the prompt")
        tab.keys("1")
        tab.wait(lambda: ("prompt_1",) in held(), "the other prompt")
        tab.wait(lambda: tab.note == "a red door", "its words")
        assert held().count(("prompt_1",)) == 1
