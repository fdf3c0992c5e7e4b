"""What a person's pages still compute, or have ready since, while the person is elsewhere: with the way back, and a stop."""

import streamlit as st

from soft_prompt_explorer.app.pages import PAGES, TRAIN
from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.server.background import Waited, progress_of, stop, waited_for
from soft_prompt_explorer.app.server.jobs import Progress


def show_tray() -> None:
    """A button that says how much is under way and how much is ready; nothing where there is neither."""
    if not _waited() and not _trainings() and not st.session_state.get("tray"):  # of what ended a moment ago it is still to be told
        return

    @st.fragment(run_every=2.0)
    def watched() -> None:
        waited, trainings = _waited(), _trainings()
        _tell_what_ended(waited, trainings)
        running = [key for key in waited if not _is_ready(key)]
        said = [f"{len(running) + len(trainings)} running"] if running or trainings else []
        said += [f"{len(waited) - len(running)} ready"] if len(waited) > len(running) else []
        if said:
            with st.popover(", ".join(said), icon=":material/hourglass_top:" if running or trainings else ":material/check_circle:"):
                for key, each in waited.items():
                    _show(key, each)
                for job in trainings:
                    st.progress(min(job.share, 1.0), text=widgets.plain(f"{job.name}: {job.doing}"))
                    with st.container(horizontal=True):
                        st.page_link(TRAIN.file, label=f"Watch {widgets.plain(job.name)}", icon=TRAIN.icon, query_params={"job": job.id})
                        if st.button("Stop", key=f"tray-{job.id}", icon=":material/stop:"):
                            widgets.job_queue().stop(job.id)
                            st.rerun()

    watched()


def _waited() -> dict[tuple, Waited]:
    """What was asked for on another page than this one, and is under way or ready."""
    for key in [key for key in waited_for() if progress_of(key) is None]:  # stopped, failed or forgotten
        del waited_for()[key]
    return {key: each for key, each in waited_for().items() if each.page != st.session_state.get("here")}


def _trainings() -> list[Progress]:
    return [] if st.session_state.get("here") == TRAIN.url_path else [job for job in widgets.job_queue().all() if job.under_way]


def _is_ready(key: tuple) -> bool:
    progress = progress_of(key)
    return progress is not None and progress[0] == 1.0


def _tell_what_ended(waited: dict[tuple, Waited], trainings: list[Progress]) -> None:
    """A note, once, for what has become ready since the last look."""
    before = st.session_state.get("tray", {})
    now = {key: each.what for key, each in waited.items() if not _is_ready(key)} | {job.id: f"the training {job.name}" for job in trainings}
    for key, what in before.items():
        job = None if isinstance(key, tuple) else widgets.job_queue().get(key)
        if key not in now and (_is_ready(key) if isinstance(key, tuple) else job is not None and job.state == "saved"):
            st.toast(widgets.plain(f"Ready: {what}"), icon=":material/check_circle:")
    st.session_state["tray"] = now


def _show(key: tuple, each: Waited) -> None:
    """One computation: how far it is, and the way back to the page that asked for it."""
    share, doing = progress_of(key) or (1.0, "")
    what = each.what[0].upper() + each.what[1:]
    if _is_ready(key):
        st.markdown(f":material/check_circle: {widgets.plain(what)}: ready.")
    else:
        st.progress(share, text=widgets.plain(f"{what}: {doing}"))
    page = next((page for page in PAGES if page.url_path == each.page), PAGES[0])
    with st.container(horizontal=True):
        st.page_link(page.file, label=f"Back to {page.title}", icon=page.icon, query_params=each.query)
        if not _is_ready(key) and st.button("Stop", key=f"tray-{hash(key)}", icon=":material/stop:"):
            stop(key)
            waited_for().pop(key, None)
            st.rerun()
