"""Single portraits: read from files, kept between runs."""
