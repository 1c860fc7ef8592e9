"""The pages of the studio, rendered on the server; they read projects, jobs and run folders and change nothing."""
