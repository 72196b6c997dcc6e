"""One file per kind of thing that the API serves; each makes a router that `app` includes.

events       publishing, and what became of an event
documents    one document: put, get, delete; the documents of a collection
collections  a collection's settings
search       passages without an answer
queries      questions and their answers, waited for, streamed or fetched
datasets     examples, datasets, review
training     runs, models, aliases
templates    prompt templates
webhooks     endpoints, deliveries, replay
hooks        signed webhooks of the model provider
erasures     what is to be forgotten
health       healthz, asyncapi.json
"""
