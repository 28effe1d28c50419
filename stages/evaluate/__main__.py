from stages.evaluate.stage import main

if __name__ == "__main__":
    main()
