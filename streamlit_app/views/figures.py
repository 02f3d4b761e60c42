"""Every plot that the recording can have, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import cached
import streamlit as st
from widgets import browse, chosen_run, literal

from attnscope.plots import plots_for
from attnscope.plots.subjects import Intervened

run = chosen_run()
st.title("All figures")
st.markdown(f"{literal(run.label)}: every figure that `attnscope figures` writes.")
made = cached.interventions(run)
draw: dict[str, Callable[[str], cached.Shown]] = {}
if made is not None:
    made_subject = Intervened(run.recording, made.outcomes)
    draw |= {plot.name: partial(cached.usage_plot, made) for plot in plots_for(made_subject)}
draw |= {plot.name: partial(cached.plot, run) for plot in plots_for(run.recording)}
browse(draw, "figure")
