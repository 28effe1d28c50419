import sys

if __name__ == "__main__":
    if sys.argv[1:2] == ["compare"]:
        from stages.evaluate.compare.command import main

        main(sys.argv[2:])
    else:
        from stages.evaluate.stage import main

        main()
