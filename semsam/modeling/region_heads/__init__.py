"""Region heads read a prompt's tokens and say more about its region; see REGION_HEAD."""

from . import caption, text_class
