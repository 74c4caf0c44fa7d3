"""pygame's key names and gamepads need its video, not a display."""

import pygame
import pytest


@pytest.fixture(scope="session", autouse=True)
def pygame_video():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SDL_VIDEODRIVER", "dummy")
        pygame.display.init()
    yield
    pygame.display.quit()
