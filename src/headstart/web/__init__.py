"""The local web app: runs, trainings, data, trying a photo, looking inside a net, and lessons; on this machine alone.

    http://127.0.0.1:7860/                       the runs
        /runs/NAME  /runs/NAME/try  .../look     one run: its report alive, trying it, looking inside
        /train  /jobs/N                          starting a training; watching it
        /data  /data/KEY                         what is wrong with a folder of photos
        /learn/...                               lessons

Pages are made by the server from templates; plain JavaScript modules ask for what changes. No page asks for anything
from another machine.
"""

from headstart.web.server import UiSettings, build_ui, serve_ui

__all__ = ["UiSettings", "build_ui", "serve_ui"]
