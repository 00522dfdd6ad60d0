"""The library for anybody's torch network: masks as things, holding them in training, shrinking and exporting what they leave."""
