"""The application: names become objects, runs are folders, and a command line is around both."""
