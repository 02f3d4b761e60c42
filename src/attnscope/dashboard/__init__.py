"""The dashboard's server, its jobs, and what only pages ask.

The pages are in ``streamlit_app/``. This package imports none of its modules, so that each module
brings in only what it needs.
"""
