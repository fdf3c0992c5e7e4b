// Mouse, finger, pen and keyboard on a pane.
function listen(atlas, pane) {
  const { stage } = pane;
  const { pointers } = atlas;
  const place = (event) => {
    const box = stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const onMap = ([x, y]) => [atlas.view.x + (x - pane.width / 2) / atlas.view.scale, atlas.view.y - (y - pane.height / 2) / atlas.view.scale];
  let began = null;

  stage.addEventListener("pointerdown", (event) => {
    if (event.button > 0) return;
    stage.focus({ preventScroll: true });
    stage.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, place(event));
    began = pointers.size === 1 ? { at: place(event), moved: 0, lasso: atlas.isLasso || event.shiftKey } : null;
    if (began?.lasso) atlas.lasso = [onMap(began.at)];
    else atlas.lasso = null;
    atlas.hover(pane, null);
  });

  stage.addEventListener("pointermove", (event) => {
    const now = place(event);
    const before = pointers.get(event.pointerId);
    if (!before) {
      atlas.hover(pane, atlas.at(pane, ...now, NEAR[event.pointerType] ?? NEAR.mouse));
      return;
    }
    if (pointers.size === 2) {
      const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
      const apart = (a) => Math.hypot(a[0] - other[0], a[1] - other[1]);
      atlas.pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
      atlas.zoom(apart(now) / Math.max(1, apart(before)), (now[0] + other[0]) / 2 - pane.width / 2, (now[1] + other[1]) / 2 - pane.height / 2);
    } else if (began) {
      began.moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
      if (atlas.lasso) {
        atlas.lasso.push(onMap(now));
        atlas.drawOver();
      } else if (began.moved > A_CLICK) atlas.pan(now[0] - before[0], now[1] - before[1]);
    }
    pointers.set(event.pointerId, now);
  });

  const lift = (event) => {
    if (!pointers.delete(event.pointerId)) return;
    if (!began) {
      if (!pointers.size) atlas.draw(); // two fingers were there
      return;
    }
    const { moved } = began;
    began = null;
    const path = atlas.lasso;
    atlas.lasso = null;
    if (event.type === "pointercancel") return;
    const adding = event.ctrlKey || event.metaKey || (event.shiftKey && moved <= A_CLICK);
    if (moved <= A_CLICK) {
      const found = atlas.at(pane, ...place(event), NEAR[event.pointerType] ?? NEAR.mouse);
      if (found?.kind === "token") atlas.toggle(found.i, adding);
      else if (atlas.selected.size && !adding) atlas.select([]);
      if (event.pointerType === "touch") atlas.hover(pane, found);
    } else if (path) {
      const { places } = atlas.tokens;
      atlas.select(atlas.inSight.filter((i) => isInside(places[2 * i], places[2 * i + 1], path)), adding);
      atlas.setLasso(false);
    } else atlas.draw();
  };
  stage.addEventListener("pointerup", lift);
  stage.addEventListener("pointercancel", lift);
  stage.addEventListener("pointerleave", () => pointers.size || atlas.hover(pane, null));
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const [x, y] = place(event);
    const lines = event.deltaMode === 1 ? 16 : 1;
    atlas.hover(pane, null);
    atlas.zoom(Math.exp(-Math.max(-120, Math.min(120, lines * event.deltaY)) * 0.002), x - pane.width / 2, y - pane.height / 2);
  }, { passive: false });

  const keys = {
    "+": () => atlas.zoom(1.6), "=": () => atlas.zoom(1.6), "-": () => atlas.zoom(1 / 1.6), "−": () => atlas.zoom(1 / 1.6), 0: () => atlas.fit(),
    ArrowLeft: () => atlas.pan(60, 0), ArrowRight: () => atlas.pan(-60, 0), ArrowUp: () => atlas.pan(0, 60), ArrowDown: () => atlas.pan(0, -60),
    l: () => atlas.setLasso(!atlas.isLasso), n: () => atlas.step(pane, 1), p: () => atlas.step(pane, -1),
    Enter: () => atlas.hovered?.kind === "token" && atlas.toggle(atlas.hovered.i, true),
    Escape: () => (atlas.isLasso ? atlas.setLasso(false) : atlas.select([])),
  };
  stage.addEventListener("keydown", (event) => {
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey || event.target !== stage) return;
    event.preventDefault();
    event.stopPropagation(); // Streamlit has keys of its own
    act();
  });
}
