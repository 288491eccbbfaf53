"""`python -m corpuscore` is `corpuscore`."""

from corpuscore.cli import main

if __name__ == "__main__":
    main()
