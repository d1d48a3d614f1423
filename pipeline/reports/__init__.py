"""Images and pages for people: sheets, charts, HTML."""
