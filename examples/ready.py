#!/usr/bin/env python3
"""A service that chrek can freeze when it is loaded.

    sudo PYTHONPATH=python chrek run --name ready --ready file:ready -- python3 examples/ready.py

(without PYTHONPATH once `make install` has put the module where Python looks for it)

The first run loads for three seconds; every later one goes on behind chrek.wait().
"""
import random
import time

import chrek

table = {n: n * n for n in range(1_000_000)}  # what takes long
time.sleep(3)
chrek.ready()
if chrek.wait() == chrek.RESTORED:
    random.seed(chrek.random())  # or every restored copy draws the same numbers
    who = chrek.identity()
    print(f"restored as number {who['generation']} on {who['hostname']}", flush=True)
print(f"serving {len(table)} entries, lot {random.randrange(1000)}", flush=True)
print("user", chrek.environment().get("USER", "unknown"), "has started this life", flush=True)
