"""Every available plot of a recording, one at a time."""

from __future__ import annotations

from functools import partial

import cached
import streamlit as st
from widgets import browse, chosen_history, chosen_interventions, chosen_run, literal

from attnscope.plots import plots_for
from attnscope.plots.subjects import Intervened
from attnscope.report import plots_of_one

run = chosen_run()
st.title("All figures")
st.markdown(f"{literal(run.label)}: the figures that `attnscope figures` writes.")
intervened = chosen_interventions(run)
draw: dict[str, partial[cached.Shown]] = {}
if intervened is not None:
    subject = Intervened(run.recording, intervened.outcomes)
    draw |= {plot.name: partial(cached.usage_plot, intervened) for plot in plots_for(subject)}
monitored = chosen_history(run)
if monitored is not None:
    draw |= {
        plot.name: partial(cached.training_plot, monitored) for plot in plots_for(monitored.history)
    }
draw |= {plot.name: partial(cached.plot, run) for plot in plots_of_one(run.recording)}
browse(draw, "figure")
