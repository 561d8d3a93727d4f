"""Makes `python -m autoscaler` the command, for use where the script is not installed."""

from autoscaler.cli.main import main

if __name__ == "__main__":
    main()
