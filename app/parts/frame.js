// What a browser does around every page: the key / goes to the jump box, the button Back undoes one thing that a person did, and what opens has the page's theme.
const SETTLED = 1000; // milliseconds after which what a person did has its step in the history

// The key writes where something is being written.
function jump(event) {
  const at = event.composedPath()[0];
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || at.matches?.("input, textarea, select, [contenteditable=true]")) return;
  event.preventDefault();
  document.querySelector(".st-key-jump input").focus();
}

// Streamlit gives a new page up to five steps while its address is completed, of which Back seems to do nothing, and a choice that is bound to the link gives
// none. Here whatever follows from one act of a person (a click, a key) is one step; what a page does to its address by itself is none.
function oneStepAnAct() {
  const push = history.pushState.bind(history);
  const replace = history.replaceState.bind(history);
  let acted = navigator.userActivation?.hasBeenActive ?? false; // a person may be quicker than this script
  let before = null; // the address that a step is due from
  let timer = null;

  function settle() {
    clearTimeout(timer);
    if (before !== null && before !== location.href) {
      const now = location.href;
      replace({}, "", before);
      push({}, "", now);
      acted = false;
    }
    before = null;
  }

  function change(state, title, url) {
    const to = new URL(url ?? location.href, location.href);
    if (to.pathname !== location.pathname) {
      clearTimeout(timer);
      if (before !== null) replace({}, "", before); // what the page that is left was told of its successor
      before = null;
      acted = false;
      push(state, title, url);
    } else if (to.href !== location.href) {
      if (acted && before === null) {
        before = location.href;
        timer = setTimeout(settle, SETTLED);
      }
      replace(state, title, url);
    }
  }

  history.pushState = change;
  history.replaceState = change;
  for (const act of ["pointerdown", "keydown"]) {
    addEventListener(act, () => {
      settle();
      acted = true;
    }, true);
  }
  addEventListener("popstate", () => {
    clearTimeout(timer);
    before = null;
    acted = false;
  }, true);
}

// What opens over a page lies outside of it: it is told whether the page is light or dark.
function sameTheme() {
  const page = document.querySelector(".stApp");
  const tell = () => {
    document.documentElement.style.colorScheme = getComputedStyle(page).colorScheme;
  };
  tell();
  const watching = new MutationObserver(tell);
  watching.observe(page, { attributes: true, attributeFilter: ["class"] });
  return watching;
}

export default function () {
  if (!window.softPromptExplorerSteps) oneStepAnAct();
  window.softPromptExplorerSteps = true;
  document.addEventListener("keydown", jump);
  const watching = sameTheme();
  return () => {
    document.removeEventListener("keydown", jump);
    watching.disconnect();
  };
}
