"""A pool that is warm by day and gone by night: two functions that run by the clock retune a third one.

    flexray deploy examples/scheduled_scaling.py     then: flexray app stop scheduled-scaling

The hours are those of New York, and daylight saving time is taken care of. To see it happen at once,

    flexray run examples/scheduled_scaling.py

does what the clock would do, and shows the pool meanwhile.
"""

import os
import time

import flexray

BY_DAY, BY_NIGHT = 2, 0

app = flexray.App("scheduled-scaling")


@app.function(cpu=0.5, scaledown_window=2)
def serve(name: str) -> str:
    return f"hello {name}, says process {os.getpid()}"


def keep_warm(containers: int) -> int:
    """Another program would find it by name: `flexray.Function.from_name("scheduled-scaling", "serve")`."""
    settings = serve.update_autoscaler(min_containers=containers)
    print(f"serve keeps {settings.min_containers} warm")
    return settings.min_containers


@app.function(cpu=0, schedule=flexray.Cron("0 6 * * *", timezone="America/New_York"))
def open_the_shop() -> int:
    return keep_warm(BY_DAY)


@app.function(cpu=0, schedule=flexray.Cron("0 22 * * *", timezone="America/New_York"))
def close_the_shop() -> int:
    return keep_warm(BY_NIGHT)


def watch(until: int) -> None:
    """Show the pool until it has so many containers."""
    began = time.monotonic()
    shown = -1
    while shown != until:
        ready = serve.get_current_stats().containers["ready"]
        if ready != shown:
            print(f"  {time.monotonic() - began:4.1f} s: {ready} containers ready")
            shown = ready
        time.sleep(0.05)


@app.local_entrypoint()
def main() -> None:
    print("6:00")
    open_the_shop.remote()
    watch(BY_DAY)
    print(serve.remote("early bird"))
    print("22:00")
    close_the_shop.remote()
    watch(BY_NIGHT)
