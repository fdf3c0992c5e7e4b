"""The map as an instrument: a component of our own, drawn in the browser by WebGL2 from what Python sends once."""
