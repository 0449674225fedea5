"""The social app, driven by its manifest (templates/apps/APP/app.yaml). Knows no app by name."""
