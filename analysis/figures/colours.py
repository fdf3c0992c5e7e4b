"""The colours of every chart and figure: Okabe & Ito's, which people with colour-blindness can tell apart. What a colour says, a word or a shape says too."""

BLUE, BLUE_LIGHT, ORANGE, GREY = "#0072B2", "#56B4E9", "#E69F00", "#8A8A8A"
GREEN, PURPLE, VERMILION, YELLOW = "#009E73", "#CC79A7", "#D55E00", "#F0E442"
