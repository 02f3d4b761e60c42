"""Sphinx settings of the documentation.

Build it with ``python -m sphinx -W --keep-going -n -b html docs build/docs``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import attnscope

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_ext"))
# Notebooks import the package that is documented, and start its commands.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(attnscope.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
)
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
os.environ.setdefault("OMP_NUM_THREADS", "2")

project = "attnscope"
author = "The authors of attnscope"
copyright = f"2026, {author}"
version = release = attnscope.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "attnscope_docs",
]
source_suffix = {".md": "myst-nb", ".rst": "restructuredtext"}
exclude_patterns = ["_ext", "results", "**/.ipynb_checkpoints", "**/jupyter_execute"]
nitpicky = True
default_role = "py:obj"
smartquotes = False  # two hyphens begin an option

# MyST and notebooks
myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 180
nb_execution_in_temp = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars
nb_ipywidgets_js = {}  # these would come from other hosts

# API
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_preprocess_types = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

# There is no inventory of other packages without a network, so their names cannot be checked. A
# name in plain backticks in a docstring becomes a link where it is documented, and need not be.
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|numpy|np|pandas|pd|matplotlib|pathlib|collections|typing|types|os)(\..*)?"),
    (r"py:.*", r"(xarray|xr|jaxtyping|npt|captum|PIL|enum|logging)(\..*)?"),
    (r"py:obj", r".*"),
    # Type variables, and types of the inside of the package that public signatures mention.
    (r"py:class", r"attnscope\.[a-z_.]+\.(S|R|T|Function)"),
    (r"py:class", r"attnscope\.gates\.(marks|ops\.operation)\.(Mark|Call|Factors)"),
    (r"py:class", r"attnscope\.(sources\.Subject|capturing\.batching\.Batch)"),
    (r"py:class", r"attnscope\.gates\.graph_(network\.GateServer|nodes\.Meeting)"),
    (r"py:class", r"attnscope\.(data\.streamed\.ImageFiles|interventions\.work\.Work)"),
    (r"py:class", r"attnscope\.(progress\.Bar|gates\.values\.Constancy)"),
    (r"py:class", r"contextlib\.AbstractContextManager|Normalizer|Changes"),
    (r"py:class", r"tuple\[.*"),
    (
        r"py:class",
        r"(ndarray|Dataset|Tensor|Module|Path|Source|ModelConfig|SEChannelGate|ECAChannelGate)",
    ),
]

# HTML
html_theme = "pydata_sphinx_theme"
html_title = "attnscope"
html_static_path = ["_static"]
html_css_files = ["attnscope.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_align": "left",
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "pygments_light_style": "tango",
    "logo": {"text": "attnscope"},
}
html_sidebars = {"index": []}
copybutton_prompt_text = r">>> |\$ "
copybutton_prompt_is_regexp = True
