"""From images of any size to masks: whole or in tiles, one or a folder of them."""
