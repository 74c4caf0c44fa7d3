"""The parts of a gamepad, by the names that a key map gives them."""

import pygame

BUTTONS = {
    pygame.CONTROLLER_BUTTON_A: "a",
    pygame.CONTROLLER_BUTTON_B: "b",
    pygame.CONTROLLER_BUTTON_X: "x",
    pygame.CONTROLLER_BUTTON_Y: "y",
    pygame.CONTROLLER_BUTTON_START: "start",
    pygame.CONTROLLER_BUTTON_BACK: "back",
    pygame.CONTROLLER_BUTTON_LEFTSHOULDER: "left shoulder",
    pygame.CONTROLLER_BUTTON_RIGHTSHOULDER: "right shoulder",
    pygame.CONTROLLER_BUTTON_LEFTSTICK: "left stick press",
    pygame.CONTROLLER_BUTTON_RIGHTSTICK: "right stick press",
    pygame.CONTROLLER_BUTTON_DPAD_UP: "dpad up",
    pygame.CONTROLLER_BUTTON_DPAD_DOWN: "dpad down",
    pygame.CONTROLLER_BUTTON_DPAD_LEFT: "dpad left",
    pygame.CONTROLLER_BUTTON_DPAD_RIGHT: "dpad right",
}
STICKS = {
    pygame.CONTROLLER_AXIS_LEFTX: ("left stick left", "left stick right"),
    pygame.CONTROLLER_AXIS_LEFTY: ("left stick up", "left stick down"),
    pygame.CONTROLLER_AXIS_RIGHTX: ("right stick left", "right stick right"),
    pygame.CONTROLLER_AXIS_RIGHTY: ("right stick up", "right stick down"),
    pygame.CONTROLLER_AXIS_TRIGGERLEFT: ("", "left trigger"),
    pygame.CONTROLLER_AXIS_TRIGGERRIGHT: ("", "right trigger"),
}
"""Each axis, and its parts at the negative and the positive end."""

GAMEPAD_NAMES = (*BUTTONS.values(), *(part for ends in STICKS.values() for part in ends if part))
