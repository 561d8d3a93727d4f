"""`python -m autoscaler`, where no command is installed."""

from autoscaler.cli.main import main

if __name__ == "__main__":
    main()
