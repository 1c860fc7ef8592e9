"""What the docs site has beside docs/*.md: tables of options, and the pages that lie in the root of the checkout."""
