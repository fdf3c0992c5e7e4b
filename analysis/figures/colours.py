"""The colours of every chart and figure: Okabe & Ito's, which people with colour-blindness can tell apart, some of them darker: each stands out 3 : 1 at least from
white paper and from a light and a dark page (WCAG 2.2, 1.4.11). What a colour says, a word or a shape says too."""

BLUE, BLUE_LIGHT, ORANGE, GREY = "#0072B2", "#2E92CC", "#C98500", "#8A8A8A"
GREEN, PURPLE, VERMILION, YELLOW = "#008A65", "#B85F92", "#D55E00", "#948900"
