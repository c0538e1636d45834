"""`python -m zonda` is the command `zonda`."""
from zonda.cli.main import main

if __name__ == "__main__":
    main()
