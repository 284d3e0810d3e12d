//! Templates rendered as in Jinja2.
