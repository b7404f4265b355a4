"""What runs on a device before anything is installed: Python's standard library alone.

``landing`` unpacks edgessl there; from then on ``main`` answers, a process a question. Everything
that lasts is a detached job with a supervisor; all that is kept is below one folder::

    code/SHA256/     edgessl as it was here, and its wheel
    store/SHA256/    bundles and data
    envs/KEY/        virtual environments
    jobs/ID/         one running job: its files, output, exit code
"""
