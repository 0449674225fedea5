"""The verbs. Each file is one verb or one piece that several verbs share; none prints."""
