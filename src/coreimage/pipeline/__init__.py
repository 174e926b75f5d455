"""Where the stages meet: builds become publications, publications become images."""
